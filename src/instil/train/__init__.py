"""The methods: each module is one command with its own config."""
