import { ConfigError } from '../../base/errors.js'
import { op, opAsync } from '../../native/call.js'
import { functional, type Module } from '../../nn/index.js'
import { noGrad, scope, Tensor } from '../../tensor/index.js'

/** Loss of a batch, the mean over its items, with other outputs of the model. */
export interface LossOutput {
  loss: Tensor
  /** Passed to `computeMetrics` and `predict`. */
  logits?: Tensor
  [name: string]: unknown
}

/** Compute the loss of one batch: the mean over its items (see `countItems`). May be asynchronous. */
export type ComputeLoss<M extends Module, B> = (
  model: M,
  batch: B,
) => Tensor | LossOutput | Promise<Tensor | LossOutput>

/** Properties of a model that determine how the Trainer treats its labels. */
interface LabelTraits {
  /**
   * True for a causal language model: labels [batch, time] are its tokens, each predicted by the logits before it, so the first
   * label of a row does not contribute to the loss. `loss` already accounts for that.
   */
  readonly shiftsLabels?: boolean
  /** Whether `forward` takes `labelSmoothing` in its batch and applies it to the loss. */
  readonly smoothsLabels?: boolean
}

const IGNORED = -100

/**
 * Return a function that calls `model.forward(batch)` and uses the `loss` of its result, or with label smoothing its `logits`.
 */
export function defaultLoss<M extends Module, B>(labelSmoothing: number): ComputeLoss<M, B> {
  return async (model, batch) => {
    const { shiftsLabels, smoothsLabels } = model as LabelTraits
    const output = (await ask(model, batch, labelSmoothing)) as LossOutput | null
    const name = model.constructor.name
    if (labelSmoothing > 0 && smoothsLabels !== true) {
      const labels = labelsOf(batch)
      if (!(output?.logits instanceof Tensor) || !labels) {
        throw new ConfigError(
          `TrainingArguments.labelSmoothingFactor: expected logits from ${name}.forward() and labels in the batch. Smooth in computeLoss instead`,
          { argument: 'labelSmoothingFactor' },
        )
      }
      const { logits } = output
      const loss = scope(() => {
        const [from, to] = shiftsLabels === true ? [logits.slice(-2, 0, -1), targetsOf(labels)] : [logits, labels]
        return functional.crossEntropy(from.reshape([-1, logits.size(-1)]), to.reshape([-1]), { labelSmoothing })
      })
      return { ...output, logits, loss }
    }
    if (output?.loss instanceof Tensor) return output
    throw new ConfigError(
      `${name}.forward: expected a loss for this batch, got none. Pass computeLoss to the Trainer`,
      {
        argument: 'computeLoss',
      },
    )
  }
}

/** Call `model.forward(batch)`, with label smoothing if the model applies it itself. */
export function ask<M extends Module, B>(model: M, batch: B, labelSmoothing: number): unknown {
  const smooths = labelSmoothing > 0 && (model as LabelTraits).smoothsLabels === true
  const forward = model.forward as unknown as (batch: B) => unknown
  return forward.call(model, smooths ? { ...batch, labelSmoothing } : batch)
}

/** Return the loss of a result. @throws ConfigError if it is not a differentiable scalar */
export function lossOf(result: Tensor | LossOutput, training: boolean): LossOutput {
  const output = result instanceof Tensor ? { loss: result } : result
  const loss: unknown = output?.loss
  if (!(loss instanceof Tensor) || loss.numel() !== 1 || loss.ndim > 1) {
    const found = loss instanceof Tensor ? `a tensor of shape [${loss.shape}]` : `${loss}`
    throw new ConfigError(`Trainer.computeLoss: expected the batch's loss, a tensor with one element, got ${found}`, {
      argument: 'computeLoss',
    })
  }
  if (training && !loss.requiresGrad) {
    throw new ConfigError(
      'Trainer: expected a loss that depends on a trainable parameter. Check whether the whole model is frozen',
      {
        argument: 'computeLoss',
      },
    )
  }
  return output
}

/** Return whether a batch is empty, as a DataLoader returns it for a rank without a sample. */
export const isEmpty = (batch: unknown): boolean => Array.isArray(batch) && batch.length === 0

/**
 * Count the targets of a batch: the labels that are not -100 if labels are integers, without the first of each row for a causal
 * language model; otherwise the rows of the batch.
 */
export function countItems(model: Module, batch: unknown): number {
  const labels = labelsOf(batch)
  if (!labels || !/^u?int/.test(labels.dtype)) return countRows(batch)
  const { shiftsLabels } = model as LabelTraits
  return Number(
    noGrad(() => scope(() => (shiftsLabels === true ? targetsOf(labels) : labels).ne(IGNORED).sum().item())),
  )
}

/** Return the labels that a causal language model predicts. */
const targetsOf = (labels: Tensor): Tensor => labels.slice(-1, 1)

/**
 * Count the rows of a batch: samples of a list, sequences of packed rows, rows of the first tensor, or items of the first list
 * without tensors.
 */
export function countRows(batch: unknown): number {
  const { sequenceLengths } = (batch ?? {}) as { sequenceLengths?: unknown }
  if (Array.isArray(sequenceLengths)) return sequenceLengths.length
  const rows = Array.isArray(batch) ? batch.length : (firstTensor(batch)?.shape[0] ?? firstList(batch)?.length)
  if (rows !== undefined) return rows
  throw new ConfigError(
    'Trainer: expected a tensor or a list in the batch to count its rows, got neither. Pass countItems',
    {
      argument: 'countItems',
    },
  )
}

/** Count the tokens that are not padding, or the elements of the first tensor's first two dimensions, or the rows. */
export function countTokens(batch: unknown): number {
  const mask = fieldOf(batch, 'attentionMask')
  if (mask?.device === 'cpu') return Number(noGrad(() => scope(() => mask.sum().item())))
  const tokens = fieldOf(batch, 'inputIds') ?? firstTensor(batch)
  return tokens ? tokens.shape.slice(0, 2).reduce((product, size) => product * size, 1) : 0
}

export const labelsOf = (batch: unknown): Tensor | undefined => fieldOf(batch, 'labels') ?? fieldOf(batch, 'label')

function fieldOf(batch: unknown, name: string): Tensor | undefined {
  const value = (batch as Record<string, unknown> | null | undefined)?.[name]
  return value instanceof Tensor ? value : undefined
}

const firstTensor = (batch: unknown): Tensor | undefined =>
  batch instanceof Tensor
    ? batch
    : Object.values(batch ?? {}).find((value): value is Tensor => value instanceof Tensor && value.ndim > 0)

const firstList = (batch: unknown): unknown[] | undefined => Object.values(batch ?? {}).find(Array.isArray)

const copyAhead = opAsync('voxtorch::copy_ahead')
const awaitCopies = op('voxtorch::await_copies')

/** Batch whose tensors are on their way to a device. */
export interface Sent<T> {
  /** Return the batch after making the device's current stream wait for the copies; the host does not wait. */
  arrived(): T
}

/**
 * Send the tensors of a batch, in arrays and plain objects, to a device through pinned memory, concurrently with its
 * computations.
 */
export async function sendAhead<T>(value: T, device: string): Promise<Sent<T>> {
  const found: Tensor[] = []
  replaced(value, (tensor) => {
    if (tensor.device !== device) found.push(tensor)
    return tensor
  })
  if (found.length === 0) return { arrived: () => value }
  const copies = (await copyAhead(found, device)) as Tensor[]
  return {
    arrived: () => {
      awaitCopies(copies)
      const sent = new Map(found.map((tensor, i) => [tensor, copies[i] as Tensor]))
      return replaced(value, (tensor) => sent.get(tensor) ?? tensor)
    },
  }
}

/** Return the batch with its tensors on a device, in arrays and plain objects. The host does not wait for the copies. */
export async function onDevice<T>(value: T, device: string): Promise<T> {
  return (await sendAhead(value, device)).arrived()
}

function replaced<T>(value: T, by: (tensor: Tensor) => Tensor): T {
  if (value instanceof Tensor) return by(value) as T
  if (Array.isArray(value)) return value.map((item) => replaced(item, by)) as T
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, replaced(item, by)])) as T
}
