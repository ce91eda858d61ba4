"""How an encoder is pretrained: named settings, one file each."""
