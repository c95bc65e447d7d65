"""Base models and tokenizers, from a hub name, a folder, a GGUF file or an installed package."""
