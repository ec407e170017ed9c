"""The text that print(module) writes, of every layer of torch.nn that voxtorch has: test/fixtures/nn/repr.json.

A case is a class with the arguments of its constructor: positional ones as they are, keywords as voxtorch's options. Floats are
no whole numbers, for JSON and JavaScript have one kind of number.
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn

FILE = Path(__file__).parent.parent / "fixtures" / "nn" / "repr.json"

CASES = [
    ("Linear", [4, 8], {}), ("Linear", [4, 8], {"bias": False}), ("Bilinear", [2, 3, 4], {}), ("Identity", [], {}),
    ("Flatten", [], {}), ("Flatten", [0, 2], {}), ("Unflatten", [1, [2, 3]], {}),
    ("GELU", [], {}), ("GELU", [], {"approximate": "tanh"}), ("ReLU", [], {}), ("SiLU", [], {}), ("Tanh", [], {}),
    ("Sigmoid", [], {}), ("Softmax", [-1], {}), ("LogSoftmax", [1], {}), ("Softmin", [1], {}), ("Softmax2d", [], {}),
    ("GLU", [], {}), ("LogSigmoid", [], {}), ("Mish", [], {}), ("Hardsigmoid", [], {}), ("Hardswish", [], {}),
    ("ReLU6", [], {}), ("SELU", [], {}), ("Softsign", [], {}), ("Tanhshrink", [], {}), ("LeakyReLU", [], {}),
    ("LeakyReLU", [0.2], {}), ("ELU", [], {}), ("CELU", [], {}), ("CELU", [0.5], {}), ("Hardshrink", [], {}),
    ("Softshrink", [0.25], {}), ("Hardtanh", [], {}), ("Hardtanh", [], {"min_val": -0.5, "max_val": 0.5}),
    ("Softplus", [], {}), ("Softplus", [], {"beta": 0.5, "threshold": 12.5}), ("Threshold", [0.1, 20.5], {}),
    ("RReLU", [], {}), ("PReLU", [], {}), ("PReLU", [], {"num_parameters": 3}),
    ("Dropout", [], {}), ("Dropout", [0.1], {}), ("Dropout1d", [0.2], {}), ("Dropout2d", [], {}), ("Dropout3d", [], {}),
    ("AlphaDropout", [0.3], {}), ("FeatureAlphaDropout", [], {}),
    ("BatchNorm1d", [4], {}), ("BatchNorm2d", [4], {"eps": 1e-3, "momentum": 0.25, "affine": False}),
    ("BatchNorm3d", [4], {"track_running_stats": False, "momentum": None}), ("InstanceNorm1d", [4], {}),
    ("InstanceNorm2d", [4], {"affine": True}), ("InstanceNorm3d", [4], {"track_running_stats": True}),
    ("LayerNorm", [8], {}), ("LayerNorm", [[3, 8]], {"eps": 1e-12, "elementwise_affine": False}),
    ("LayerNorm", [8], {"bias": False}), ("RMSNorm", [8], {}), ("RMSNorm", [8], {"eps": 1e-6}),
    ("GroupNorm", [2, 4], {}), ("GroupNorm", [2, 4], {"affine": False}), ("LocalResponseNorm", [5], {}),
    ("LocalResponseNorm", [5], {"alpha": 0.5, "k": 1.5}),
    ("Conv1d", [4, 6, 3], {}), ("Conv1d", [4, 6, 3], {"stride": 2, "padding": 1, "dilation": 2, "groups": 2, "bias": False}),
    ("Conv2d", [4, 6, [3, 5]], {"padding": "same", "padding_mode": "reflect"}), ("Conv3d", [4, 6, 3], {"padding": [0, 1, 0]}),
    ("ConvTranspose1d", [4, 6, 3], {}),
    ("ConvTranspose2d", [4, 6, 3], {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2, "dilation": 2, "bias": False}),
    ("ConvTranspose3d", [4, 6, 3], {}),
    ("CosineSimilarity", [], {}), ("PairwiseDistance", [], {}),
    ("Embedding", [10, 4], {}), ("Embedding", [10, 4], {"padding_idx": 0, "max_norm": 1.5, "norm_type": 1.5, "scale_grad_by_freq": True}),
    ("EmbeddingBag", [10, 4], {}), ("EmbeddingBag", [10, 4], {"mode": "sum", "padding_idx": 1, "max_norm": 0.5}),
    ("ConstantPad1d", [2, 3.5], {}), ("ConstantPad2d", [[1, 2, 3, 4], 0.5], {}), ("ZeroPad1d", [1], {}), ("ZeroPad2d", [1], {}),
    ("ZeroPad3d", [1], {}), ("ReflectionPad1d", [1], {}), ("ReflectionPad2d", [1], {}), ("ReflectionPad3d", [1], {}),
    ("ReplicationPad1d", [1], {}), ("ReplicationPad2d", [[1, 2, 3, 4]], {}), ("ReplicationPad3d", [1], {}),
    ("CircularPad1d", [1], {}), ("CircularPad2d", [1], {}), ("CircularPad3d", [1], {}),
    ("MaxPool1d", [2], {}), ("MaxPool2d", [[3, 2]], {"stride": [2, 1], "padding": [1, 0]}), ("MaxPool3d", [2], {"ceil_mode": True}),
    ("AvgPool1d", [2], {}), ("AvgPool2d", [2], {}), ("AvgPool3d", [[1, 2, 3]], {"stride": 2}),
    ("AdaptiveAvgPool1d", [5], {}), ("AdaptiveAvgPool2d", [[5, 7]], {}), ("AdaptiveAvgPool3d", [5], {}),
    ("AdaptiveMaxPool1d", [5], {}), ("AdaptiveMaxPool2d", [[5, 7]], {}), ("AdaptiveMaxPool3d", [5], {}),
    ("LPPool1d", [2, 3], {"stride": 2}), ("LPPool2d", [2, [3, 2]], {"stride": [2, 1]}), ("LPPool3d", [2, 3], {"stride": 2}),
    ("MaxUnpool1d", [2], {}), ("MaxUnpool2d", [2], {"stride": 3}), ("MaxUnpool3d", [2], {"padding": 1}),
    ("FractionalMaxPool2d", [3], {"output_size": [5, 7]}), ("FractionalMaxPool3d", [3], {"output_ratio": 0.5}),
    ("Upsample", [], {"scale_factor": 2.5}), ("Upsample", [], {"size": [4, 5], "mode": "bilinear", "align_corners": True}),
    ("UpsamplingNearest2d", [], {"size": [4, 5]}), ("UpsamplingBilinear2d", [], {"scale_factor": 1.5}),
    ("PixelShuffle", [2], {}), ("PixelUnshuffle", [2], {}), ("ChannelShuffle", [2], {}),
    ("Unfold", [2], {}), ("Unfold", [[2, 3]], {"stride": 2}), ("Fold", [[4, 5], 2], {}),
    ("RNNCell", [3, 4], {}), ("RNNCell", [3, 4], {"nonlinearity": "relu", "bias": False}), ("GRUCell", [3, 4], {}),
    ("LSTMCell", [3, 4], {"bias": False}),
    ("RNN", [3, 4], {}), ("GRU", [3, 4], {"num_layers": 2, "bias": False, "batch_first": True, "dropout": 0.5, "bidirectional": True}),
    ("LSTM", [3, 4], {"proj_size": 2}),
    ("MultiheadAttention", [8, 2], {}),
    ("L1Loss", [], {}), ("MSELoss", [], {"reduction": "sum"}), ("SoftMarginLoss", [], {}), ("MultiLabelMarginLoss", [], {}),
    ("SmoothL1Loss", [], {}), ("HuberLoss", [], {}), ("CrossEntropyLoss", [], {}), ("NLLLoss", [], {}), ("BCELoss", [], {}),
    ("BCEWithLogitsLoss", [], {}), ("MultiLabelSoftMarginLoss", [], {}), ("MultiMarginLoss", [], {}), ("KLDivLoss", [], {}),
    ("CosineEmbeddingLoss", [], {}), ("MarginRankingLoss", [], {}), ("HingeEmbeddingLoss", [], {}), ("TripletMarginLoss", [], {}),
    ("PoissonNLLLoss", [], {}), ("GaussianNLLLoss", [], {}), ("CTCLoss", [], {}),
    ("Transformer", [], {"d_model": 8, "nhead": 2, "num_encoder_layers": 2, "num_decoder_layers": 1, "dim_feedforward": 16}),
    ("ModuleList", [], {}), ("ModuleDict", [], {}), ("Sequential", [], {}),
]


def tupled(value):
    return tuple(value) if isinstance(value, list) else value


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 3), nn.Linear(3, 3)])
        self.by_name = nn.ModuleDict({"a": nn.Tanh(), "b": nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))})
        self.scale = nn.Parameter(torch.ones(1))

    def extra_repr(self):
        return "scale=1"


class Bare(nn.Module):
    def extra_repr(self):
        return "a=1\nb=2"


def main():
    cases = []
    for name, args, options in CASES:
        text = repr(getattr(nn, name)(*map(tupled, args), **{key: tupled(value) for key, value in options.items()}))
        cases.append({"name": name, "args": args, "options": options, "text": text})
    for own in (Head(), Bare()):
        cases.append({"name": type(own).__name__, "args": [], "options": {}, "text": repr(own)})
    text = json.dumps(cases, indent=1) + "\n"
    if "--check" in sys.argv:
        assert FILE.read_text() == text, f"{FILE} is not what torch {torch.__version__} prints"
    else:
        FILE.write_text(text)
    print(f"{len(cases)} texts of torch {torch.__version__}")


main()
