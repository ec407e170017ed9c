"""Losses of six networks with full weights, LoRA, DoRA and LoRA on packed weights, in four precisions:
test/fixtures/peft/precision.safetensors. The weights are those of the networks' own fixtures.

`exact/<method>` is PEFT's loss in float64, `norm/<method>` the root of all its gradients' squares, and
`<precision>/<method>` PEFT's loss in that precision, where the reference is written for it: not SPECTRA's and SALMONN's.

    python test/reference/peft_precision.py [--check]
"""

import copy
import warnings

import torch
import torch.nn.functional as F
from bitsandbytes import functional
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import RobertaConfig, RobertaModel, WavLMConfig, WavLMModel

import decoder_lm
import roberta
import salmonn
import spectra_model
import wav2vec2
import whisper
from common import Fixture, main, randint, randn
from peft_quantized import dequantize

METHODS = ['full', 'lora', 'dora', 'nf4', 'int8']
PRECISIONS = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16, 'autocast': torch.float32}
RANK, ALPHA = 2, 4


def packed(weight, method):
    """What the codes of a weight stand for."""
    weight = weight.detach().float()
    if method == 'nf4':
        codes, state = functional.quantize_4bit(weight, blocksize=64, quant_type='nf4', compress_statistics=False)
        return dequantize(codes, state.absmax, weight.shape, torch.float32)
    codes, scale, _ = functional.int8_vectorwise_quant(weight)
    return codes.float() * (scale / 127)[:, None]


def weight_with_adapter(layer):
    """What a lora.Linear computes with. transformers' WavLM takes the weights of its attention's layers and calls none of
    them, so that there peft's adapters would do nothing."""
    weight, name = layer.get_base_layer().weight, 'default'
    if name not in layer.lora_A:
        return weight
    b, a = layer.lora_B[name].weight, layer.lora_A[name].weight
    whole = weight.to(a.dtype) + layer.scaling[name] * (b @ a)
    if layer.use_dora.get(name):
        norm = torch.linalg.norm(whole, dim=1).detach()
        whole = whole * (layer.lora_magnitude_vector[name].weight / norm)[:, None]
    return whole.to(weight.dtype)


class Simple:
    def __init__(self, name, model, targets, inputs, loss):
        self.name, self.model, self.targets, self.inputs, self.loss = name, model.float(), targets, inputs, loss

    def run(self, model, dtype):
        given = {k: v.to(dtype) if v.is_floating_point() and k != 'target' else v for k, v in self.inputs.items()}
        return self.loss(model, given)


def mse(key):
    def loss(model, given):
        target = given.pop('target')
        output = getattr(model(**given), key)
        exact = torch.promote_types(output.dtype, torch.float32)
        return F.mse_loss(output.to(exact), target.to(exact))

    return loss


def with_labels(model, given):
    return model(**given).loss


def networks():
    config = RobertaConfig(**roberta.SIZE, type_vocab_size=1, layer_norm_eps=1e-5)
    config._attn_implementation = 'eager'
    model = RobertaModel(config)
    roberta.fill(model, 'base')
    ids = randint('precision/roberta', 3, 50, 3, 7)
    given = {'input_ids': ids, 'target': randn('precision/roberta/target', 3, 7, 24)}
    yield Simple('roberta', model, ['query', 'value', 'dense'], given, mse('last_hidden_state'))
    config = WavLMConfig(**wav2vec2.SIZE, mask_time_prob=0.0, layerdrop=0.0, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0)
    config._attn_implementation = 'eager'
    model = WavLMModel(config)
    wav2vec2.fill(model, 'wavlm/base')
    given = {'input_values': randn('precision/wavlm', 2, 320), 'target': randn('precision/wavlm/target', 2, 15, 12)}
    yield Simple('wavlm', model, ['q_proj', 'v_proj', 'intermediate_dense'], given, mse('last_hidden_state'))
    model = whisper.build('plain')
    given = {
        'input_features': randn('precision/whisper', 2, 6, 14),
        'labels': randint('precision/whisper/labels', 5, 29, 2, 6),
    }
    yield Simple('whisper', model, ['q_proj', 'v_proj', 'fc1'], given, with_labels)
    model = decoder_lm.build('llama', 'llama')
    ids = randint('precision/llama', 1, 23, 3, 8)
    yield Simple('llama', model, ['q_proj', 'v_proj', 'down_proj'], {'input_ids': ids, 'labels': ids}, with_labels)


def adapted(model, name, method, targets, given):
    """The network with an adapter whose values `given` collects."""
    if method in ('nf4', 'int8'):
        with torch.no_grad():
            for key, module in model.named_modules():
                if key.split('.')[-1] in targets and isinstance(module, torch.nn.Linear):
                    module.weight.copy_(packed(module.weight, method))
    peft = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, use_dora=method == 'dora'))
    with torch.no_grad():
        for key, parameter in peft.named_parameters():
            short = key.replace('.default', '')
            if 'magnitude' in key:
                parameter.mul_(1 + randn(f'{name}/{key}', *parameter.shape, scale=0.2).to(parameter.dtype))
                short = short.removesuffix('.weight')
            elif 'lora_' in key:
                parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.3))
            else:
                continue
            given[short] = parameter.detach().float().clone()
    return peft


def measure(loss, parameters):
    loss.backward()
    squares = [p.grad.double().square().sum() for p in parameters if p.grad is not None]
    return torch.stack(squares).sum().sqrt()


def simple(fixture):
    for net in networks():
        out, given = {}, {}
        for method in METHODS:
            model = copy.deepcopy(net.model).eval()
            if method == 'full':
                model.requires_grad_(True)
            else:
                model = adapted(model, net.name, method, net.targets, given)
            exact = copy.deepcopy(model).double()
            loss = net.run(exact, torch.float64)
            out[f'exact/{method}'] = loss
            out[f'norm/{method}'] = measure(loss, exact.parameters())
            for precision, dtype in PRECISIONS.items():
                # As peft makes it: the network in half precision, the adapter in float32.
                low = copy.deepcopy(model)
                for key, parameter in low.named_parameters():
                    if 'lora_' not in key:
                        parameter.data = parameter.data.to(dtype)
                for buffer in low.buffers():
                    if buffer.is_floating_point() and 'inv_freq' not in key:
                        buffer.data = buffer.data.to(dtype)
                with torch.autocast('cpu', torch.bfloat16, enabled=precision == 'autocast'):
                    loss = net.run(low, dtype)
                loss.backward()
                out[f'{precision}/{method}'] = loss.float()
        store(fixture, net.name, net.targets, net.inputs, given, out)


def store(fixture, name, targets, inputs, given, out):
    fixture.case(
        dict(name=name, targets=targets, r=RANK, alpha=ALPHA),
        **{'in': inputs},
        adapter=given,
        out={key: value.detach().double() for key, value in out.items()},
    )


def spectra(fixture):
    name, targets = 'classes', ['query', 'value', 'q_proj', 'v_proj']
    out, given = {}, {}
    inputs = spectra_model.inputs_of(name, 3, [200, 131, 90], spectra_model.SAMPLES)
    labels = randint(f'{name}/labels', 0, 3, 3)
    for method in METHODS:
        net = spectra_model.network(name, None, 1, 3)
        if method != 'full':
            adapted(net, 'spectra', method, targets, given)
            net.double()
        alone = spectra_model.Alone(net, inputs)
        heard = [alone.single(i, False, False) for i in range(3)]
        states, _ = spectra_model.padded(alone.fuse(list(zip(alone.text, heard))), 9, max(map(len, heard)))
        loss = F.cross_entropy(net.head(states[:, 0]), labels)
        out[f'exact/{method}'] = loss
        out[f'norm/{method}'] = measure(loss, net.parameters())
    store(fixture, 'spectra', targets, {}, given, out)


def salmonn_losses(fixture):
    targets = ['q_proj', 'v_proj']
    batch = salmonn.BATCHES['one']
    clips = [[salmonn.clip(10 * row + i, s) for i, s in enumerate(own)] for row, own in enumerate(batch['clips'])]
    out, given = {}, {}
    for method in METHODS:
        model = salmonn.Salmonn('salmonn')
        llm = model.llm.unload()
        trained = [p for key, p in model.trained.items() if 'lora_' not in key]
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        if method == 'full':
            model.llm, more = llm, list(llm.parameters())
        else:
            model.llm = adapted(llm, 'salmonn', method, targets, given)
            more = [p for key, p in model.llm.named_parameters() if 'lora_' in key]
        for parameter in trained + more:
            parameter.requires_grad_(True)
        model.double()
        loss, _, _ = model.loss(batch['texts'], clips, batch['targets'])
        out[f'exact/{method}'] = loss
        out[f'norm/{method}'] = measure(loss, trained + more)
    store(fixture, 'salmonn', targets, {}, given, out)


def precision():
    fixture = Fixture()
    simple(fixture)
    spectra(fixture)
    salmonn_losses(fixture)
    return fixture


if __name__ == '__main__':
    BaseTunerLayer.weight = property(weight_with_adapter)
    warnings.filterwarnings('ignore')
    main({'peft/precision': precision})
