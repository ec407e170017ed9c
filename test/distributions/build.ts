import { distributions, onesLike, type Tensor, tensor, zerosLike } from '../../lib/index.js'

type Parameters = Record<string, Tensor>

const {
  AffineTransform,
  Categorical,
  Independent,
  MixtureSameFamily,
  Normal,
  PowerTransform,
  SigmoidTransform,
  SoftplusTransform,
  TanhTransform,
  TransformedDistribution,
  Uniform,
} = distributions

/** Distributions that are built of others, as in test/reference/distributions.py, by the names of their cases. */
const composed: Record<string, (parameters: Parameters) => distributions.Distribution> = {
  'TransformedDistribution squashed': ({ loc, scale }) =>
    new TransformedDistribution(new Normal(loc!, scale!), [new TanhTransform(), new AffineTransform(1, -2)]),
  'TransformedDistribution logistic': ({ loc, scale }) =>
    new TransformedDistribution(new Uniform(zerosLike(loc!), onesLike(loc!)), [
      new SigmoidTransform().inv,
      new AffineTransform(loc!, scale!),
    ]),
  'TransformedDistribution softened': ({ loc, scale }) =>
    new TransformedDistribution(new Normal(loc!, scale!), [new SoftplusTransform(), new PowerTransform(tensor(2.0))]),
  'MixtureSameFamily normal': ({ probs, loc, scale }) =>
    new MixtureSameFamily(new Categorical(probs!), new Normal(loc!, scale!)),
  'MixtureSameFamily vectors': ({ probs, loc, scale }) =>
    new MixtureSameFamily(new Categorical(probs!), new Independent(new Normal(loc!, scale!), 1)),
  Independent: ({ loc, scale }) => new Independent(new Normal(loc!, scale!), 1),
}

/** Build the distribution of a case. */
export function build(name: string, parameters: Parameters, constants: object = {}): distributions.Distribution {
  const compose = composed[name]
  if (compose !== undefined) return compose(parameters)
  const type = (distributions as unknown as Record<string, new (named: object) => distributions.Distribution>)[
    name.split(' ')[0]!
  ]!
  return new type({ ...parameters, ...constants })
}

/** The sum of a result times fixed weights, as `weighted` in test/reference/distributions.py. */
export function weighted(result: Tensor): Tensor {
  const weights = Float64Array.from({ length: result.numel() }, (_, i) => Math.cos(i))
  return result.mul(tensor(weights, { shape: result.shape, dtype: result.dtype })).sum()
}
