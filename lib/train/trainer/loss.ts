import { ConfigError } from '../../base/errors.js'
import { op, opAsync } from '../../native/call.js'
import { functional, type Module } from '../../nn/index.js'
import { noGrad, scope, Tensor } from '../../tensor/index.js'

/** A loss, the mean over the items of its batch, with what else the model gave. */
export interface LossOutput {
  loss: Tensor
  /** What `computeMetrics` and `predict` see. */
  logits?: Tensor
  [name: string]: unknown
}

/** The loss of one batch: the mean over its items (see `countItems`). May be asynchronous. */
export type ComputeLoss<M extends Module, B> = (
  model: M,
  batch: B,
) => Tensor | LossOutput | Promise<Tensor | LossOutput>

/** What a model may say of itself, so that its labels are taken as it takes them. */
interface LabelTraits {
  /**
   * A causal language model: the labels [batch, time] are its tokens, each told by the logits before it, so that the first
   * of a row is not learnt. `loss` follows that already.
   */
  readonly shiftsLabels?: boolean
  /** `forward` takes `labelSmoothing` in its batch, and gives the loss accordingly. */
  readonly smoothsLabels?: boolean
}

const IGNORED = -100

/** Calls `model.forward(batch)` and takes the `loss` of its result; with label smoothing, that of its `logits`. */
export function defaultLoss<M extends Module, B>(labelSmoothing: number): ComputeLoss<M, B> {
  return async (model, batch) => {
    const { shiftsLabels, smoothsLabels } = model as LabelTraits
    const output = (await ask(model, batch, labelSmoothing)) as LossOutput | null
    const name = model.constructor.name
    if (labelSmoothing > 0 && smoothsLabels !== true) {
      const labels = labelsOf(batch)
      if (!(output?.logits instanceof Tensor) || !labels) {
        throw new ConfigError(
          `labelSmoothingFactor needs logits from ${name}.forward() and labels in the batch; smooth in computeLoss instead`,
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
    throw new ConfigError(`${name}.forward() gave no loss for this batch: give the Trainer a computeLoss`, {
      argument: 'computeLoss',
    })
  }
}

/** Calls `model.forward(batch)`, which is given label smoothing where it smooths itself. */
export function ask<M extends Module, B>(model: M, batch: B, labelSmoothing: number): unknown {
  const smooths = labelSmoothing > 0 && (model as LabelTraits).smoothsLabels === true
  const forward = model.forward as unknown as (batch: B) => unknown
  return forward.call(model, smooths ? { ...batch, labelSmoothing } : batch)
}

/** @throws ConfigError when it is not one number that can be differentiated */
export function lossOf(result: Tensor | LossOutput, training: boolean): LossOutput {
  const output = result instanceof Tensor ? { loss: result } : result
  const loss: unknown = output?.loss
  if (!(loss instanceof Tensor) || loss.numel() !== 1 || loss.ndim > 1) {
    const found = loss instanceof Tensor ? `a tensor of shape [${loss.shape}]` : `${loss}`
    throw new ConfigError(`computeLoss must return the batch's loss, a tensor of one number, not ${found}`, {
      argument: 'computeLoss',
    })
  }
  if (training && !loss.requiresGrad) {
    throw new ConfigError('The loss does not depend on any parameter that is trained: is the whole model frozen?', {
      argument: 'computeLoss',
    })
  }
  return output
}

/** What a DataLoader gives a rank that has no sample of a batch. */
export const isEmpty = (batch: unknown): boolean => Array.isArray(batch) && batch.length === 0

/**
 * Targets that count: the labels that are not -100 if labels are whole numbers, without the first of each row for a causal
 * language model; else the rows of the batch.
 */
export function countItems(model: Module, batch: unknown): number {
  const labels = labelsOf(batch)
  if (!labels || !/^u?int/.test(labels.dtype)) return countRows(batch)
  const { shiftsLabels } = model as LabelTraits
  return Number(
    noGrad(() => scope(() => (shiftsLabels === true ? targetsOf(labels) : labels).ne(IGNORED).sum().item())),
  )
}

/** What a causal language model learns to tell. */
const targetsOf = (labels: Tensor): Tensor => labels.slice(-1, 1)

/** Samples of a list, sequences of packed rows, rows of the first tensor, or items of the first list where there is no tensor. */
export function countRows(batch: unknown): number {
  const { sequenceLengths } = (batch ?? {}) as { sequenceLengths?: unknown }
  if (Array.isArray(sequenceLengths)) return sequenceLengths.length
  const rows = Array.isArray(batch) ? batch.length : (firstTensor(batch)?.shape[0] ?? firstList(batch)?.length)
  if (rows !== undefined) return rows
  throw new ConfigError(
    'The Trainer finds no tensor and no list in a batch, so it cannot count its rows: give it countItems',
    {
      argument: 'countItems',
    },
  )
}

/** Tokens that are not padding, or what the first tensor has of places; rows where there is only one place. */
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

/** A batch whose tensors are on their way to a device. */
export interface Sent<T> {
  /** It, once what computes on the device from now on waits for them there; the host does not. */
  arrived(): T
}

/** Sends the tensors of a batch, in arrays and plain objects, to a device: through pinned memory, beside what it computes. */
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

/** The batch with its tensors on a device, in arrays and plain objects. The host does not wait for the copies. */
export async function onDevice<T>(value: T, device: string): Promise<T> {
  return (await sendAhead(value, device)).arrived()
}

function replaced<T>(value: T, by: (tensor: Tensor) => Tensor): T {
  if (value instanceof Tensor) return by(value) as T
  if (Array.isArray(value)) return value.map((item) => replaced(item, by)) as T
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, replaced(item, by)])) as T
}
