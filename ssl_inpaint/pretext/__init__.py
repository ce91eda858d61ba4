"""Ways to pretrain an encoder, one file each."""
