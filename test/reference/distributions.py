"""torch.distributions: densities, entropies, moments, cdf and divergences with their gradients, and seeded samples.

Parameters and values are float32. What is expected is computed in float64 from them and stored as float32, so that it tests both
dtypes. Seeded samples are drawn in float32, as the generator's stream depends on the dtype. Python's names become camelCase.

Left out, as PyTorch is wrong or undefined there: the mode of Kumaraswamy (NaN for concentrations above 1).
"""

import re

import torch
import torch.distributions as D
from common import Fixture, main, rand, randint, randn, relative_error
from torch.distributions import kl as torch_kl

torch.set_num_threads(1)
PROPERTIES = ['mean', 'variance', 'stddev', 'mode']


def camel(name):
    return re.sub(r'_(\w)', lambda match: match.group(1).upper(), name)


def positive(name, *shape):
    return rand(name, *shape) * 2 + 0.5


def inner(name, *shape):
    """Probabilities away from 0 and 1."""
    return rand(name, *shape) * 0.8 + 0.1


def simplex(name, *shape):
    weights = rand(name, *shape) + 0.2
    return weights / weights.sum(-1, keepdim=True)


def tril(name, *shape):
    matrix = randn(name, *shape, scale=0.4).tril(-1)
    return matrix + torch.diag_embed(rand(f'{name}/diagonal', *shape[:-1]) + 0.6)


def covariance(name, *shape):
    factor = tril(name, *shape)
    product = factor.double() @ factor.double().mT
    return ((product + product.mT) / 2 * 4096).round().float() / 4096


def correlation(name, *shape):
    """Cholesky factors of correlation matrices, whose rows have length 1."""
    factor = tril(name, *shape).double()
    return (factor / factor.norm(dim=-1, keepdim=True)).float()


class Case:
    def __init__(self, kind, parameters, value=None, constants=None, build=None, title=''):
        self.kind = kind
        self.name = f'{kind} {title}'.strip()
        self.parameters = parameters
        self.value = value
        self.constants = constants or {}
        self.build = build or (lambda **arguments: getattr(D, kind)(**arguments))

    def distribution(self, dtype=torch.float64, grad=True):
        tensors = {key: value.to(dtype).requires_grad_(grad) for key, value in self.parameters.items()}
        return self.build(**tensors, **self.constants), tensors


def mixture(probs, loc, scale):
    return D.MixtureSameFamily(D.Categorical(probs), D.Normal(loc, scale))


def vector_mixture(probs, loc, scale):
    return D.MixtureSameFamily(D.Categorical(probs), D.Independent(D.Normal(loc, scale), 1))


def squashed(loc, scale):
    return D.TransformedDistribution(D.Normal(loc, scale), [D.TanhTransform(), D.AffineTransform(1.0, -2.0)])


def logistic(loc, scale):
    base = D.Uniform(torch.zeros_like(loc), torch.ones_like(loc))
    return D.TransformedDistribution(base, [D.SigmoidTransform().inv, D.AffineTransform(loc, scale)])


def softened(loc, scale):
    return D.TransformedDistribution(D.Normal(loc, scale), [D.transforms.SoftplusTransform(), D.PowerTransform(torch.tensor(2.0))])


def two(name, a, b, first, second):
    return {a: first(f'{name}/{a}', 2, 1), b: second(f'{name}/{b}', 3)}


def location_scale(name):
    return two(name, 'loc', 'scale', randn, positive)


CONTINUOUS = [
    Case('Normal', location_scale('Normal'), randn('Normal/value', 2, 2, 3)),
    Case('LogNormal', location_scale('LogNormal'), positive('LogNormal/value', 2, 2, 3)),
    Case('HalfNormal', {'scale': positive('HalfNormal', 3)}, positive('HalfNormal/value', 2, 3)),
    Case('Laplace', location_scale('Laplace'), randn('Laplace/value', 2, 2, 3)),
    Case('Cauchy', location_scale('Cauchy'), randn('Cauchy/value', 2, 2, 3)),
    Case('HalfCauchy', {'scale': positive('HalfCauchy', 3)}, positive('HalfCauchy/value', 2, 3)),
    Case('Gumbel', location_scale('Gumbel'), randn('Gumbel/value', 2, 2, 3)),
    Case('Uniform', {'low': -rand('Uniform/low', 2, 1), 'high': positive('Uniform/high', 3)}, rand('Uniform/value', 2, 2, 3) * 0.5),
    Case('Exponential', {'rate': positive('Exponential', 3)}, positive('Exponential/value', 2, 3)),
    Case('Gamma', two('Gamma', 'concentration', 'rate', positive, positive), positive('Gamma/value', 2, 2, 3)),
    Case('Chi2', {'df': positive('Chi2', 3)}, positive('Chi2/value', 2, 3)),
    Case(
        'InverseGamma',
        {'concentration': positive('InverseGamma', 2, 1) + 2, 'rate': positive('InverseGamma/rate', 3)},
        positive('InverseGamma/value', 2, 2, 3),
    ),
    Case('Beta', two('Beta', 'concentration1', 'concentration0', positive, positive), inner('Beta/value', 2, 2, 3)),
    Case(
        'Kumaraswamy',
        two('Kumaraswamy', 'concentration1', 'concentration0', positive, positive),
        inner('Kumaraswamy/value', 2, 2, 3),
    ),
    Case('Weibull', two('Weibull', 'scale', 'concentration', positive, lambda *a: positive(*a) + 1), positive('Weibull/value', 2, 2, 3)),
    Case(
        'Pareto',
        {'scale': positive('Pareto', 2, 1), 'alpha': positive('Pareto/alpha', 3) + 2},
        positive('Pareto/value', 2, 2, 3) + 3,
    ),
    Case(
        'GeneralizedPareto',
        {
            'loc': randn('GeneralizedPareto', 2, 1),
            'scale': positive('GeneralizedPareto/scale', 3),
            'concentration': torch.tensor([0.3, -0.2, 0.1]),
        },
        rand('GeneralizedPareto/value', 2, 2, 3) + 2,
    ),
    Case(
        'StudentT',
        {'df': positive('StudentT', 2, 1) + 2, 'loc': randn('StudentT/loc', 3), 'scale': positive('StudentT/scale', 3)},
        randn('StudentT/value', 2, 2, 3),
    ),
    Case(
        'FisherSnedecor',
        {'df1': positive('FisherSnedecor', 2, 1) + 2, 'df2': positive('FisherSnedecor/2', 3) + 4},
        positive('FisherSnedecor/value', 2, 2, 3),
    ),
    Case('VonMises', {'loc': randn('VonMises', 2, 1), 'concentration': torch.tensor([0.5, 2.0, 7.0])}, randn('VonMises/value', 2, 2, 3)),
    Case('ContinuousBernoulli', {'probs': torch.tensor([0.2, 0.5, 0.4995, 0.9])}, rand('ContinuousBernoulli', 2, 4), title='probs'),
    Case('ContinuousBernoulli', {'logits': randn('ContinuousBernoulli/logits', 4)}, rand('ContinuousBernoulli', 2, 4), title='logits'),
    Case(
        'RelaxedBernoulli',
        {'temperature': torch.tensor(0.7), 'probs': inner('RelaxedBernoulli', 3)},
        inner('RelaxedBernoulli/value', 2, 3),
        title='probs',
    ),
    Case(
        'RelaxedBernoulli',
        {'temperature': torch.tensor(1.3), 'logits': randn('RelaxedBernoulli/logits', 3)},
        inner('RelaxedBernoulli/value', 2, 3),
        title='logits',
    ),
    Case('TransformedDistribution', location_scale('squashed'), rand('squashed/value', 2, 2, 3) + 0.5, build=squashed, title='squashed'),
    Case('TransformedDistribution', location_scale('logistic'), randn('logistic/value', 2, 2, 3), build=logistic, title='logistic'),
    Case('TransformedDistribution', location_scale('softened'), positive('softened/value', 2, 2, 3), build=softened, title='softened'),
    Case(
        'MixtureSameFamily',
        {'probs': simplex('mixture', 2, 3), 'loc': randn('mixture/loc', 2, 3), 'scale': positive('mixture/scale', 3)},
        randn('mixture/value', 4, 2),
        build=mixture,
        title='normal',
    ),
]


def integers(name, high, *shape):
    return randint(name, 0, high, *shape).float()


def counts(name, total, *shape):
    picks = randint(name, 0, shape[-1], *shape[:-1], total)
    return torch.nn.functional.one_hot(picks, shape[-1]).sum(-2).float()


DISCRETE = [
    Case('Bernoulli', {'probs': inner('Bernoulli', 3)}, integers('Bernoulli/value', 2, 4, 3), title='probs'),
    Case('Bernoulli', {'logits': randn('Bernoulli/logits', 3)}, integers('Bernoulli/value', 2, 4, 3), title='logits'),
    Case('Categorical', {'probs': rand('Categorical', 2, 4) + 0.1}, integers('Categorical/value', 4, 3, 2), title='probs'),
    Case('Categorical', {'logits': randn('Categorical/logits', 2, 4)}, integers('Categorical/value', 4, 3, 2), title='logits'),
    Case('OneHotCategorical', {'probs': rand('OneHot', 2, 4) + 0.1}, counts('OneHot/value', 1, 3, 2, 4), title='probs'),
    Case('OneHotCategorical', {'logits': randn('OneHot/logits', 2, 4)}, counts('OneHot/value', 1, 3, 2, 4), title='logits'),
    Case('OneHotCategoricalStraightThrough', {'logits': randn('Straight', 2, 4)}, counts('Straight/value', 1, 3, 2, 4)),
    Case('Binomial', {'probs': inner('Binomial', 3)}, integers('Binomial/value', 6, 4, 3), {'total_count': 6}, title='probs'),
    Case('Binomial', {'logits': randn('Binomial/logits', 3)}, integers('Binomial/value', 6, 4, 3), {'total_count': 6}, title='logits'),
    Case(
        'NegativeBinomial',
        {'total_count': positive('NegativeBinomial', 2, 1), 'probs': inner('NegativeBinomial/probs', 3)},
        integers('NegativeBinomial/value', 6, 2, 3),
        title='probs',
    ),
    Case(
        'NegativeBinomial',
        {'total_count': positive('NegativeBinomial', 2, 1), 'logits': randn('NegativeBinomial/logits', 3)},
        integers('NegativeBinomial/value', 6, 2, 3),
        title='logits',
    ),
    Case('Geometric', {'probs': inner('Geometric', 3)}, integers('Geometric/value', 6, 4, 3), title='probs'),
    Case('Geometric', {'logits': randn('Geometric/logits', 3)}, integers('Geometric/value', 6, 4, 3), title='logits'),
    Case('Poisson', {'rate': positive('Poisson', 3) * 2}, integers('Poisson/value', 6, 4, 3)),
    Case('Multinomial', {'probs': rand('Multinomial', 2, 3) + 0.1}, counts('Multinomial/value', 5, 4, 2, 3), {'total_count': 5}, title='probs'),
    Case('Multinomial', {'logits': randn('Multinomial/logits', 3)}, counts('Multinomial/value', 5, 4, 3), {'total_count': 5}, title='logits'),
]

VECTORS = [
    Case('Dirichlet', {'concentration': positive('Dirichlet', 2, 3)}, simplex('Dirichlet/value', 4, 2, 3)),
    Case(
        'MultivariateNormal',
        {'loc': randn('Mvn', 2, 3), 'scale_tril': tril('Mvn/tril', 3, 3)},
        randn('Mvn/value', 4, 2, 3),
        title='scaleTril',
    ),
    Case(
        'MultivariateNormal',
        {'loc': randn('Mvn/2', 3), 'covariance_matrix': covariance('Mvn/covariance', 2, 3, 3)},
        randn('Mvn/value', 4, 2, 3),
        title='covarianceMatrix',
    ),
    Case(
        'MultivariateNormal',
        {'loc': randn('Mvn/3', 2, 3), 'precision_matrix': covariance('Mvn/precision', 2, 3, 3)},
        randn('Mvn/value', 4, 2, 3),
        title='precisionMatrix',
    ),
    Case(
        'LowRankMultivariateNormal',
        {'loc': randn('LowRank', 2, 4), 'cov_factor': randn('LowRank/factor', 4, 2), 'cov_diag': positive('LowRank/diag', 2, 4)},
        randn('LowRank/value', 3, 2, 4),
    ),
    Case(
        'Wishart',
        {'df': positive('Wishart', 2) + 3, 'scale_tril': tril('Wishart/tril', 3, 3)},
        covariance('Wishart/value', 4, 2, 3, 3),
        title='scaleTril',
    ),
    Case(
        'Wishart',
        {'df': positive('Wishart/2', 2) + 4, 'covariance_matrix': covariance('Wishart/covariance', 2, 3, 3)},
        covariance('Wishart/value', 4, 2, 3, 3),
        title='covarianceMatrix',
    ),
    Case(
        'Wishart',
        {'df': positive('Wishart/3', 2, 1) + 3, 'precision_matrix': covariance('Wishart/precision', 2, 3, 3)},
        covariance('Wishart/value', 2, 2, 3, 3),
        title='precisionMatrix',
    ),
    Case(
        'RelaxedOneHotCategorical',
        {'temperature': torch.tensor(0.7), 'probs': rand('RelaxedOneHot', 2, 4) + 0.1},
        simplex('RelaxedOneHot/value', 3, 2, 4),
        title='probs',
    ),
    Case(
        'RelaxedOneHotCategorical',
        {'temperature': torch.tensor(1.5), 'logits': randn('RelaxedOneHot/logits', 2, 4)},
        simplex('RelaxedOneHot/value', 3, 2, 4),
        title='logits',
    ),
    Case('LKJCholesky', {'concentration': torch.tensor([0.7, 2.5])}, correlation('LKJCholesky', 3, 1, 3, 3), {'dim': 3, 'validate_args': False}),
    Case('LogisticNormal', {'loc': randn('LogisticNormal', 2, 3), 'scale': positive('LogisticNormal/scale', 3)}, simplex('LogisticNormal/value', 2, 4)),
    Case(
        'Independent',
        {'loc': randn('Independent', 2, 3), 'scale': positive('Independent/scale', 3)},
        randn('Independent/value', 4, 2, 3),
        build=lambda loc, scale: D.Independent(D.Normal(loc, scale), 1),
    ),
    Case(
        'MixtureSameFamily',
        {'probs': simplex('mixture/2', 3), 'loc': randn('mixture/2/loc', 3, 2), 'scale': positive('mixture/2/scale', 2)},
        randn('mixture/2/value', 4, 2),
        build=vector_mixture,
        title='vectors',
    ),
]


def weighted(result):
    """The sum of a result times fixed weights, which a gradient can be taken of."""
    weights = torch.cos(torch.arange(result.numel(), dtype=torch.float64)).reshape(result.shape)
    return (result * weights.to(result.dtype)).sum()


def outputs(case):
    # GeneralizedPareto compares with a tensor of the default dtype.
    torch.set_default_dtype(torch.float64)
    try:
        distribution, found, gradients, levels = evaluate(case, torch.float64)
    finally:
        torch.set_default_dtype(torch.float32)
    _, singles, single_gradients, _ = evaluate(case, torch.float32)
    errors = {name: relative_error(singles[name], found[name]) for name in found}
    errors |= {name: relative_error(single_gradients.get(name, gradients[name]), gradients[name]) for name in gradients}
    # Where PyTorch's own float32 loses more than a few roundings, ours may lose as much.
    errors = {name: float(f'{error:.1e}') for name, error in errors.items() if 2.5e-6 < error < 1}
    return distribution, found, gradients, levels, errors


def evaluate(case, dtype):
    """Every output of a case and its gradients, computed in a dtype."""
    distribution, tensors = case.distribution(dtype)
    value = case.value.to(dtype)

    def attempt(run):
        try:
            return run()
        except NotImplementedError:
            return None

    found = {name: attempt(lambda name=name: getattr(distribution, name)) for name in PROPERTIES}
    if case.kind == 'Kumaraswamy':
        found['mode'] = None
    found['entropy'] = attempt(distribution.entropy)
    found['logProb'] = distribution.log_prob(value)
    found['cdf'] = attempt(lambda: distribution.cdf(value))
    if found['cdf'] is not None:
        with torch.no_grad():
            levels = inner(f'{case.name}/levels', *found['cdf'].shape).to(dtype)
        found['icdf'] = attempt(lambda: distribution.icdf(levels))
    else:
        levels = None
    if distribution.has_enumerate_support:
        found['enumerateSupport'] = distribution.enumerate_support()
    found = {name: result for name, result in found.items() if result is not None}
    gradients = {}
    for name, result in found.items():
        if not result.requires_grad or not result.isfinite().all():
            continue
        for key, tensor in tensors.items():
            try:
                (gradient,) = torch.autograd.grad(weighted(result), tensor, retain_graph=True, allow_unused=True)
            except NotImplementedError:
                continue  # the incomplete gamma function by its first argument
            if gradient is not None:
                gradients[f'{name}.{camel(key)}'] = gradient
    return distribution, found, gradients, levels


def properties(cases):
    def build():
        fixture = Fixture()
        for case in cases:
            distribution, found, gradients, levels, errors = outputs(case)
            given = {'value': case.value}
            if levels is not None and 'icdf' in found:
                given['levels'] = levels.float()
            description = {
                'name': case.name,
                'type': case.kind,
                'constants': {camel(key): value for key, value in case.constants.items()},
                'batchShape': list(distribution.batch_shape),
                'eventShape': list(distribution.event_shape),
                'hasRsample': distribution.has_rsample,
                'hasEnumerateSupport': distribution.has_enumerate_support,
                'errors': errors,
                'missing': [name for name in [*PROPERTIES, 'entropy', 'cdf'] if name not in found],
            }
            fixture.case(
                description,
                **{'in': given},
                param={camel(key): value for key, value in case.parameters.items()},
                out={name: result.float() for name, result in found.items()},
                grad={name: gradient.float() for name, gradient in gradients.items()},
            )
        return fixture

    return build


def draw(distribution, count):
    """Reparameterized samples. PyTorch 2.13 draws each regular sample of a Wishart distribution again, as its check is inverted."""
    if isinstance(distribution, D.Wishart):
        return distribution._bartlett_sampling(torch.Size([count]))
    return distribution.rsample((count,))


def samples():
    fixture = Fixture()
    for seed, case in enumerate(CONTINUOUS + DISCRETE + VECTORS):
        distribution, tensors = case.distribution(torch.float32)
        torch.manual_seed(seed)
        wishart = isinstance(distribution, D.Wishart)
        out = {'sample': draw(distribution, 4) if wishart else distribution.sample((4,))}
        gradients = {}
        if distribution.has_rsample:
            torch.manual_seed(seed)
            out['rsample'] = draw(distribution, 4)
            found = torch.autograd.grad(weighted(out['rsample']), tensors.values(), allow_unused=True)
            gradients = {camel(key): gradient for key, gradient in zip(tensors, found) if gradient is not None}
        fixture.case({'name': case.name, 'seed': seed}, out={key: value.detach() for key, value in out.items()}, grad=gradients)
    return fixture


def parameters_of(kind, role):
    """Parameters [2] of a distribution of a kind; those of p and q differ."""
    name = f'kl/{kind}/{role}'
    wide = role == 'q'
    makers = {
        'Uniform': lambda: {'low': torch.tensor([-1.0, 0.1 - wide]), 'high': torch.tensor([1.5, 0.7 + wide])},
        'Pareto': lambda: {'scale': rand(name, 2) + (0.5 if wide else 1.5), 'alpha': positive(f'{name}/alpha', 2) + 2},
        'Bernoulli': lambda: {'probs': inner(name, 2)},
        'ContinuousBernoulli': lambda: {'probs': inner(name, 2)},
        'Geometric': lambda: {'probs': inner(name, 2)},
        'Binomial': lambda: {'total_count': torch.tensor([5.0, 4.0 - wide]), 'probs': inner(name, 2)},
        'Poisson': lambda: {'rate': positive(name, 2)},
        'Exponential': lambda: {'rate': positive(name, 2)},
        'Categorical': lambda: {'logits': randn(name, 2, 3)},
        'OneHotCategorical': lambda: {'probs': simplex(name, 2, 3)},
        'Dirichlet': lambda: {'concentration': positive(name, 2, 3)},
        'Beta': lambda: {'concentration1': positive(name, 2), 'concentration0': positive(f'{name}/0', 2)},
        'Gamma': lambda: {'concentration': positive(name, 2), 'rate': positive(f'{name}/rate', 2)},
        'HalfNormal': lambda: {'scale': positive(name, 2)},
        'HalfCauchy': lambda: {'scale': positive(name, 2)},
        'MultivariateNormal': lambda: {'loc': randn(name, 2, 3), 'scale_tril': tril(f'{name}/tril', *([2] if wide else []), 3, 3)},
        'Wishart': lambda: {'df': positive(name, 2) + 3, 'scale_tril': tril(f'{name}/tril', 2, 3, 3)},
        'LowRankMultivariateNormal': lambda: {
            'loc': randn(name, 2, 3),
            'cov_factor': randn(f'{name}/factor', 3, 2),
            'cov_diag': positive(f'{name}/diag', 2, 3),
        },
    }
    return makers.get(kind, lambda: {'loc': randn(name, 2), 'scale': positive(f'{name}/scale', 2)})()


def divergence(p, q):
    """PyTorch sums the general rule's terms over the batch, so each Wishart distribution goes alone."""
    if not isinstance(p, D.Wishart):
        return D.kl_divergence(p, q)
    alone = [[D.Wishart(one.df[i], scale_tril=one.scale_tril[i]) for i in range(2)] for one in (p, q)]
    return torch.stack([D.kl_divergence(*pair) for pair in zip(*alone)])


def divergences():
    kinds = {case.kind for case in CONTINUOUS + DISCRETE + VECTORS} - {'Independent', 'TransformedDistribution'}
    pairs = [(p.__name__, q.__name__) for p, q in torch_kl._KL_REGISTRY]
    pairs = sorted({(p, q) for p, q in pairs if p in kinds and q in kinds})
    # By the general rules for transformed distributions and, for Chi2, subclasses.
    pairs += [('LogNormal', 'LogNormal'), ('HalfCauchy', 'HalfCauchy'), ('LogisticNormal', 'LogisticNormal')]
    # By the general rule for exponential families.
    pairs += [('Wishart', 'Wishart')]
    fixture = Fixture()
    for p, q in pairs:
        made = []
        tensors = {}
        for role, kind in (('p', p), ('q', q)):
            parameters = parameters_of(kind, role)
            doubles = {key: value.double().requires_grad_() for key, value in parameters.items()}
            made.append(getattr(D, kind)(**doubles))
            tensors.update({f'{role}.{camel(key)}': (parameters[key], doubles[key]) for key in parameters})
        result = divergence(*made)
        gradients = {}
        if result.requires_grad and result.isfinite().all():
            leaves = {key: double for key, (_, double) in tensors.items()}
            found = torch.autograd.grad(weighted(result), leaves.values(), allow_unused=True)
            gradients = {key: gradient.float() for key, gradient in zip(leaves, found) if gradient is not None}
        if p == 'Wishart':
            # Above the diagonal the general rule has a gradient too, which no lower triangular factor can follow.
            gradients['q.scaleTril'] = gradients['q.scaleTril'].tril()
        fixture.case(
            {'name': f'{p} {q}', 'p': p, 'q': q},
            param={key: single for key, (single, _) in tensors.items()},
            out={'kl': result.float()},
            grad=gradients,
        )
    return fixture


if __name__ == '__main__':
    main(
        {
            'distributions/continuous': properties(CONTINUOUS),
            'distributions/discrete': properties(DISCRETE),
            'distributions/vectors': properties(VECTORS),
            'distributions/samples': samples,
            'distributions/kl': divergences,
        }
    )
