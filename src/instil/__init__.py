"""instil: from a pretrained language model to one that does what people want (InstructGPT)."""

__version__ = "0.1.0"
