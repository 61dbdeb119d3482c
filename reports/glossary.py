"""What the names on the page mean, for somebody who sees them for the first time; one line each."""

from collections.abc import Iterable

MODELS = {
    "tiny_sd": "a small latent UNet, built like SD1.5 and trained on the embedded world",
    "tiny_pixart": "a small latent transformer, built like PixArt and trained on the embedded world",
    "sd15": "Stable Diffusion 1.5, a UNet",
    "sdxl": "Stable Diffusion XL, a larger UNet",
    "pixart": "PixArt-Sigma, a transformer",
    "pixart_512": "PixArt-Sigma at 512 px",
    "pixart_alpha": "PixArt-Alpha, a transformer",
}
VARIANTS = {
    "self_attention": "the model as it is: the teacher that all others are compared with",
    "neighborhood": "attention to the k x k neighbours of each token",
    "linfusion": "generalised linear attention",
    "deltaconv": "the ∆ConvBlock: gated depthwise convolutions on a pyramid, and a global mean",
    "relu_linear": "linear attention with ReLU",
    "shifted_window": "attention inside shifted windows",
    "token_merging": "attention on what is left when like tokens are merged",
    "kv_compression": "attention over keys and values of a coarser grid",
    "hybrid": "different mixers at different sites",
    "pooling": "every token receives the mean of all",
    "depthwise": "depthwise convolutions alone",
}
READINGS = {
    "flops": "multiply-adds and additions of one denoiser call, 2 per multiply-add",
    "latency": "time of one denoiser call",
    "image_latency": "time of one image with all its steps",
    "peak_memory": "most bytes that one call held, measured",
    "projected_memory": "most bytes that one call holds, computed",
    "clip_score": "how well image and prompt agree, 0 to 100",
    "fdd": "distance of the images' DINO features from those of real images, 0 for equal sets",
    "ds": "how confident and how varied a DINO classifier finds the images",
    "attributes": "share of a caption's places, shapes and colours that a trained probe finds in the image",
    "feature_error": "squared error of what stands in for attention, over the variance of what the teacher's gives out",
    "kd": "kernel distance of DINO features from those of real images",
    "cmmd": "kernel distance of CLIP features from those of real images",
}
EMBEDDED = (
    "The embedded world draws captioned scenes of coloured shapes from a seed. Models trained on it are small and "
    "genuine; scores taken on it compare with one another and with nothing outside."
)


def known(names: Iterable[str], words: dict[str, str]) -> list[tuple[str, str]]:
    """Those of the names that have a line, with it."""
    return [(name, words[name]) for name in dict.fromkeys(names) if name in words]
