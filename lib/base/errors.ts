import { shortened } from './words.js'

/** Characters of a message: what it quotes of a file or a request may be as long as that. */
const LONGEST_MESSAGE = 10_000

/**
 * The errors that voxtorch throws. Each has a `code`, a sentence that says what was wrong, where, and what to do, and the
 * facts as fields.
 */
export class VoxtorchError extends Error {
  /** A stable name for programs to branch on, such as `ERR_SHAPE`. */
  readonly code: string

  constructor(message: string, fields: Record<string, unknown> = {}, code = 'ERR_VOXTORCH') {
    const { cause, ...rest } = copied(fields)
    // Turning anything else into text may overflow the stack, or run code of a proxy.
    super(
      typeof message === 'string' ? shortened(message, LONGEST_MESSAGE) : `(no message: a ${typeof message})`,
      cause === undefined ? undefined : { cause },
    )
    this.name = new.target.name
    this.code = code
    Object.assign(this, rest)
  }
}

/** The fields of an error; of an object that refuses to be read there are none. */
function copied(fields: Record<string, unknown>): Record<string, unknown> {
  try {
    return { ...fields }
  } catch {
    return {}
  }
}

/** Sizes that do not fit each other. */
export class ShapeError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_SHAPE')
  }
}

/** A dtype that the operation does not take. */
export class DTypeError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_DTYPE')
  }
}

/** A device that is not there, or tensors on different ones. */
export class DeviceError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_DEVICE')
  }
}

/** An index outside the tensor, or of a kind that cannot index. */
export class IndexError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_INDEX')
  }
}

/** An option or argument of the wrong type or value. */
export class ConfigError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_CONFIG')
  }
}

/** Data that cannot be used: a bad record, a ragged array. */
export class DataError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_DATA')
  }
}

/** A file of weights that cannot be read, or does not fit the model. */
export class CheckpointError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_CHECKPOINT')
  }
}

/** A tensor used after it was freed, or on another thread than its own. */
export class DisposedError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_DISPOSED')
  }
}

/** Memory that a queued job still uses. */
export class BusyError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_BUSY')
  }
}

/** A scope used in a way that cannot be right. */
export class ScopeError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_SCOPE')
  }
}

/** No memory for what was asked. */
export class OutOfMemoryError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_OUT_OF_MEMORY')
  }
}

/** What was asked would not fit; found out before allocating. */
export class InsufficientMemoryError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_INSUFFICIENT_MEMORY')
  }
}

/** Something that libtorch does not do for these arguments. */
export class NotImplementedError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_NOT_IMPLEMENTED')
  }
}

/** An operator refused its arguments for another reason. */
export class OperatorError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_OPERATOR')
  }
}

/** A backward pass that cannot be done. */
export class GradientError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_GRADIENT')
  }
}

/** Numbers that are NaN or infinite where only finite ones can be used. */
export class NonFiniteError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_NON_FINITE')
  }
}

/** Work that was given up because its thread or caller ended. */
export class CancelledError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_CANCELLED')
  }
}

/** Why a repository cannot be had. */
export type HubReason = 'not-found' | 'access' | 'offline' | 'network' | 'integrity' | 'storage'

/**
 * A repository of the Hugging Face Hub that cannot be had. `reason` says why: it does not exist, needs a token or an
 * agreement, is not in the cache while offline, the connection fails, what came is not what was promised, or the cache
 * folder refuses.
 */
export class HubError extends VoxtorchError {
  declare readonly reason: HubReason

  constructor(message: string, fields: { reason: HubReason } & Record<string, unknown>) {
    super(message, fields, 'ERR_HUB')
  }
}

/** Processes that cannot train together: one is gone or late, they cannot meet, or they call different things. */
export class DistributedError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_DISTRIBUTED')
  }
}

/** libtorch or the addon cannot be found, or do not fit each other. */
export class LibtorchError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_LIBTORCH')
  }
}

type ErrorClass = new (message: string, fields?: Record<string, unknown>) => VoxtorchError

// Numbers shared with binding/errors.h; where the kind does not tell, libtorch's sentence does.
const byKind: Record<number, ErrorClass> = {
  1: IndexError,
  4: NotImplementedError,
  5: OutOfMemoryError,
  7: BusyError,
  8: DisposedError,
  9: ConfigError,
  11: CancelledError,
  12: DataError,
  13: DistributedError,
}

// The first that matches counts: sentences about a tensor's size often name its dtype too.
const bySentence: [RegExp, ErrorClass][] = [
  [
    /^the data has \d+ bytes|^a gradient must have its tensor's shape|^shape mismatch|number of sizes provided|must match the existing size|cannot be broadcast|expected shape compatible/,
    ShapeError,
  ],
  [/step must be greater than zero|step cannot be zero/, IndexError],
  [
    /implicitly created|not have been used in the graph|register a hook|element 0 of tensors|does not require grad|backward through the graph|modified by an inplace|leaf variable|leaf Variable|differentiable|returned nan values|custom function must return|computing the gradient|grad_fn|requires_grad|require gradients|inference tensor|Inference tensor/i,
    GradientError,
  ],
  [/out of memory|can't allocate|allocate memory|Storage size calculation overflowed/i, OutOfMemoryError],
  [
    /tensor's device|same device|on device|expected device|all tensors to be on|CUDA|cuda|NVIDIA|PyTorch was not|meta tensor|backend/i,
    DeviceError,
  ],
  [/not implemented for|Not implemented/i, NotImplementedError],
  [
    /dtype|scalar type|data type|result type|integer|floating|complex|Bool|ScalarType|Long|Float|Half|type promotion/,
    DTypeError,
  ],
  [/index|out of range|out of bounds/i, IndexError],
  [
    /shape|size|dimension|dim\b|dims\b|elements|broadcast|expand|\bnumel\b|stride|batch|D tensor|Dimension|length|view/i,
    ShapeError,
  ],
]

/** libtorch's sentence without what is meant for its own developers. */
function plain(message: string): string {
  return message
    .split('\nException raised from')[0]!
    .split(" This could be because the operator doesn't exist for this backend")[0]!
    .trim()
}

/** The error for a native failure, in the caller's words where libtorch's own sentence is for C++ readers. */
export function nativeError(failure: { kind: number; message: string; op: string }): VoxtorchError {
  const name = failure.op.replace(/^\w+::/, '')
  const message = plain(failure.message)
  let Class = byKind[failure.kind]
  if (/^Could not run .* backend/.test(failure.message)) Class = DeviceError
  if (Class === undefined) Class = bySentence.find(([pattern]) => pattern.test(message))?.[1] ?? OperatorError
  // What is wrong with a file begins with its name, and with a process group with the public function's.
  const text =
    name === '' || failure.kind === 12 || failure.kind === 13 || message.startsWith(name)
      ? message
      : `${name}: ${message}`
  return new Class(text, name === '' ? {} : { op: name })
}
