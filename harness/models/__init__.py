"""The families of models, UNets (SD1.5, SDXL) and diffusion transformers (PixArt), and their shipped configurations."""
