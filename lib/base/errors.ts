import { shortened } from './words.js'

/** Maximum length of a message in characters, since a message may quote text of a file or a request. */
const LONGEST_MESSAGE = 10_000

/**
 * Base class of the errors that voxtorch throws. Each has a `code`, a message that says where, what was expected, what was
 * found and what to do, and the same facts as fields.
 */
export class VoxtorchError extends Error {
  /** A stable name for programs to branch on, such as `ERR_SHAPE`. */
  readonly code: string

  constructor(message: string, fields: Record<string, unknown> = {}, code = 'ERR_VOXTORCH') {
    const { cause, ...rest } = copied(fields)
    // Converting any other value to a string may overflow the stack, or run code of a proxy.
    super(
      typeof message === 'string' ? shortened(message, LONGEST_MESSAGE) : `(no message: a ${typeof message})`,
      cause === undefined ? undefined : { cause },
    )
    this.name = new.target.name
    this.code = code
    Object.assign(this, rest)
  }
}

/** Copy the fields of an error; returns {} if reading them throws. */
function copied(fields: Record<string, unknown>): Record<string, unknown> {
  try {
    return { ...fields }
  } catch {
    return {}
  }
}

/** Shapes that do not match. */
export class ShapeError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_SHAPE')
  }
}

/** A dtype that the operation does not support. */
export class DTypeError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_DTYPE')
  }
}

/** A device that does not exist, or tensors on different devices. */
export class DeviceError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_DEVICE')
  }
}

/** An index outside the tensor, or of a type that cannot be an index. */
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

/** A tensor used after it was freed, or on a thread other than the one that created it. */
export class DisposedError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_DISPOSED')
  }
}

/** Memory that cannot be changed because a queued job still uses it. */
export class BusyError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_BUSY')
  }
}

/** A wrong use of a scope. */
export class ScopeError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_SCOPE')
  }
}

/** An allocation that failed. */
export class OutOfMemoryError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_OUT_OF_MEMORY')
  }
}

/** A request that needs more memory than there is, found before allocating. */
export class InsufficientMemoryError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_INSUFFICIENT_MEMORY')
  }
}

/** An operation that libtorch does not implement for these arguments. */
export class NotImplementedError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_NOT_IMPLEMENTED')
  }
}

/** Arguments that an operator rejected for another reason. */
export class OperatorError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_OPERATOR')
  }
}

/** A backward pass that cannot be computed. */
export class GradientError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_GRADIENT')
  }
}

/** NaN or infinite numbers where only finite ones are allowed. */
export class NonFiniteError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_NON_FINITE')
  }
}

/** Work that was aborted because its thread or caller ended. */
export class CancelledError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_CANCELLED')
  }
}

/** Reason why a repository is not available. */
export type HubReason = 'not-found' | 'access' | 'offline' | 'network' | 'integrity' | 'storage'

/**
 * A repository of the Hugging Face Hub that is not available. `reason` says why: it does not exist, needs a token or an
 * accepted license, is not in the cache while offline, the connection fails, a checksum does not match, or the cache folder
 * cannot be written.
 */
export class HubError extends VoxtorchError {
  declare readonly reason: HubReason

  constructor(message: string, fields: { reason: HubReason } & Record<string, unknown>) {
    super(message, fields, 'ERR_HUB')
  }
}

/** Processes that cannot train together: one ended or timed out, they cannot connect, or they call different collectives. */
export class DistributedError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_DISTRIBUTED')
  }
}

/** libtorch or the addon cannot be found, or their versions do not match. */
export class LibtorchError extends VoxtorchError {
  constructor(message: string, fields: Record<string, unknown> = {}) {
    super(message, fields, 'ERR_LIBTORCH')
  }
}

type ErrorClass = new (message: string, fields?: Record<string, unknown>) => VoxtorchError

// Numbers shared with binding/errors.h. Other kinds are classified by libtorch's message.
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

// The first match wins: messages about a tensor's size often name its dtype too.
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

/** Return libtorch's message without the parts for its own developers. */
function plain(message: string): string {
  return message
    .split('\nException raised from')[0]!
    .split(" This could be because the operator doesn't exist for this backend")[0]!
    .trim()
}

/** Return the typed error for a native failure, with libtorch's message in plain words. */
export function nativeError(failure: { kind: number; message: string; op: string }): VoxtorchError {
  const name = failure.op.replace(/^\w+::/, '')
  const message = plain(failure.message)
  let Class = byKind[failure.kind]
  if (/^Could not run .* backend/.test(failure.message)) Class = DeviceError
  if (Class === undefined) Class = bySentence.find(([pattern]) => pattern.test(message))?.[1] ?? OperatorError
  // Messages about a file already begin with its name, and those of a process group with the public function.
  const text =
    name === '' || failure.kind === 12 || failure.kind === 13 || message.startsWith(name)
      ? message
      : `${name}: ${message}`
  return new Class(text, name === '' ? {} : { op: name })
}
