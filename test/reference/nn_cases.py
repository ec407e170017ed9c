"""One case of a layer or function, forward and backward, as the TypeScript test builds and calls it."""

import torch
from common import Fixture, rand, randn


class Cases(Fixture):
    def run(self, name, call, inputs, args, run, *, module=None, construct=None, train=False, seed=None, still=()):
        """Forward and backward of one case. `still` names floating-point inputs that get no gradient."""
        description = {'name': name, 'call': call, 'args': args, 'train': train}
        inputs = {key: value.clone() for key, value in inputs.items()}
        moving = [key for key, value in inputs.items() if value.is_floating_point() and key not in still]
        for key in moving:
            inputs[key].requires_grad_()
        roles = {'in': inputs}
        if module is not None:
            fill(name, module)
            module.train(train)
            state = module.state_dict()
            description |= {'construct': construct or [], 'state': list(state)}
            roles['param'] = {key: value.clone() for key, value in state.items()}
        if seed is not None:
            description['seed'] = seed
            torch.manual_seed(seed)
        outputs = run(module, **inputs) if module is not None else run(**inputs)
        if not isinstance(outputs, dict):
            outputs = {'': outputs}
        roles['out'] = outputs = {key or 'out': value for key, value in outputs.items()}
        description['outputs'] = list(outputs)
        roles['cotangent'] = {key: randn(f'{name}/cotangent/{key}', *value.shape) for key, value in outputs.items()}
        roots = [key for key, value in outputs.items() if value.requires_grad]
        if roots:
            sum((outputs[key] * roles['cotangent'][key]).sum() for key in roots).backward()
        description['gradients'] = moving if roots else []
        roles['grad'] = {key: inputs[key].grad for key in description['gradients']}
        if module is not None:
            roles['paramgrad'] = {key: value.grad for key, value in module.named_parameters()}
            roles['buffer'] = dict(module.named_buffers())
        self.case(description, **roles)


def fill(name, module):
    """Values that do not depend on torch's generator; scales and variances stay positive."""
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if key.endswith('num_batches_tracked'):
                value.fill_(3)
            elif key.endswith('running_var') or (value.ndim == 1 and key.endswith('weight')):
                value.copy_(rand(f'{name}/{key}', *value.shape) + 0.5)
            else:
                value.copy_(randn(f'{name}/{key}', *value.shape, scale=0.4))
