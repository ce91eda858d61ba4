"""Tasks that measure an encoder, one file each."""
