"""The language model: text, tokens, batches, logprobs and samples."""
