import { ShapeError } from '../base/errors.js'
import { scope, type Tensor } from '../tensor/index.js'
import { exactlyOne, namedArguments, requireMatrix, type Setup, type Value } from './arguments.js'
import { type Constraint, real, realVector, simplex, unitInterval } from './constraints.js'
import { Distribution } from './distribution.js'
import { ExponentialFamily } from './exponential-family.js'
import { binaryLogits, clampProbs } from './math.js'

/** The arguments of a distribution that takes `probs` or `logits`. */
export type ProbsOrLogits<V = Value> = { probs: V; logits?: null } | { probs?: null; logits: V }

type Read = (name: 'probs' | 'logits') => Tensor | undefined

const probsOf = (read: Read): Tensor => scope(() => read('probs') ?? read('logits')!.sigmoid())
const logitsOf = (read: Read): Tensor => scope(() => read('logits') ?? binaryLogits(read('probs')!))
const BINARY = { probs: unitInterval, logits: real }

/** A distribution whose parameter is the probability of an event: `probs`, or its log odds `logits`. */
export abstract class Binary extends Distribution {
  get probs(): Tensor {
    return probsOf((name) => (this.parameters[name] === undefined ? undefined : this.parameter(name)))
  }

  get logits(): Tensor {
    return logitsOf((name) => (this.parameters[name] === undefined ? undefined : this.parameter(name)))
  }

  override get argConstraints(): Record<string, Constraint> {
    return BINARY
  }
}

/** A {@link Binary} distribution of an exponential family. */
export abstract class BinaryFamily extends ExponentialFamily {
  get probs(): Tensor {
    return probsOf((name) => (this.parameters[name] === undefined ? undefined : this.parameter(name)))
  }

  get logits(): Tensor {
    return logitsOf((name) => (this.parameters[name] === undefined ? undefined : this.parameter(name)))
  }

  override get argConstraints(): Record<string, Constraint> {
    return BINARY
  }
}

/** Return the shapes and options of a distribution over k classes with `probs` or `logits` [..., k]. */
export function classArguments(
  where: string,
  args: readonly unknown[],
  others: readonly string[] = [],
): { batchShape: number[]; classes: number; setup: Setup; found: Record<string, unknown> } {
  const { validateArgs, ...found } = namedArguments(where, [...others, 'probs', 'logits'], args)
  const chosen = exactlyOne(where, ['probs', 'logits'], found)
  const values = requireMatrix(where, chosen, found[chosen], 1)
  const { shape } = values
  const classes = shape.at(-1)!
  if (classes === 0)
    throw new ShapeError(`${where}: expected ${chosen} of at least one class, got shape [${shape}]`, { shape })
  return {
    batchShape: shape.slice(0, -1),
    classes,
    setup: { validateArgs, parameters: { [chosen]: values } },
    found,
  }
}

/** A distribution whose parameters are the probabilities of k classes: `probs`, or unnormalized log-probabilities `logits`. */
export abstract class Classes extends Distribution {
  /** Normalized probabilities [...batchShape, k]. */
  get probs(): Tensor {
    return scope(() => {
      if (this.parameters.probs === undefined) return this.logits.softmax(-1)
      const given = this.parameter('probs', 1)
      return given.div(given.sum(-1, true))
    })
  }

  /** Normalized log-probabilities [...batchShape, k]. */
  get logits(): Tensor {
    return scope(() => {
      if (this.parameters.logits === undefined) return clampProbs(this.probs).log()
      const given = this.parameter('logits', 1)
      return given.sub(given.logsumexp(-1, true))
    })
  }

  override get argConstraints(): Record<string, Constraint> {
    return { probs: simplex, logits: realVector }
  }

  /** Number of classes. */
  protected get classes(): number {
    return ((this.parameters.probs ?? this.parameters.logits) as Tensor).size(-1)
  }
}
