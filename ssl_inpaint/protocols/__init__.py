"""How an encoder is measured: named, versioned protocols, one file each."""
