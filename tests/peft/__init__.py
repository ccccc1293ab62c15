"""The method for Hugging Face PEFT."""
