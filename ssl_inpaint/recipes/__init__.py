"""Named, versioned settings: pretraining recipes and transfer protocols, one file each."""
