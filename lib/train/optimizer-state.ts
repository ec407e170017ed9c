import { shown } from '../base/check.js'
import { CheckpointError } from '../base/errors.js'
import { type DType, scope, Tensor, zeros } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'

/** State as in PyTorch's `torch.optim.Optimizer.state_dict()`, key for key: parameters are numbered through all groups. */
export interface OptimizerState {
  state: Record<string, Record<string, Tensor>>
  param_groups: (Record<string, unknown> & { params: number[] })[]
}

/** State of one parameter, with PyTorch's names. */
export type ParamState = Record<string, Tensor>

/** Expected form of an entry of a parameter's state. */
export interface StateSlot {
  shape: readonly number[]
  /** Default: the dtype of the tensor that is updated. */
  dtype?: DType
  /** Whether it may be left out. */
  optional?: boolean
  /** Reject a saved tensor of another dtype instead of converting it. */
  exact?: boolean
  /** Fixed value that the entry must have; checked and not kept. */
  constant?: { name: string; make(): Tensor }
}

/** Count or other scalar: float32 for any parameter dtype. Older files store plain numbers. */
export const NUMBER: StateSlot = { shape: [], dtype: 'float32' }

/** Saved state, with dictionaries as objects and tuples as lists. */
export interface ReadState {
  state: Map<number, Record<string, unknown>>
  param_groups: OptimizerState['param_groups']
}

/** Return the entries of a dictionary of a file; one with non-string keys is a Map. */
function entriesOf(value: unknown): [unknown, unknown][] | undefined {
  if (typeof value !== 'object' || value === null || value instanceof Tensor || Array.isArray(value)) return undefined
  return value instanceof Map ? [...value] : Object.entries(value)
}

/** Read a state. @throws CheckpointError unless it has the form of a state whose entries all belong to a parameter group */
export function readState(dict: unknown): ReadState {
  const malformed = () =>
    new CheckpointError('Optimizer.loadStateDict: expected state and param_groups, as stateDict() returns them', {})
  const whole = new Map(entriesOf(dict) ?? [])
  const states = entriesOf(whole.get('state'))
  const groups = whole.get('param_groups')
  if (!states || !Array.isArray(groups)) throw malformed()
  const param_groups = groups.map((group) => {
    const options = Object.fromEntries(entriesOf(group) ?? []) as ReadState['param_groups'][number]
    if (!Array.isArray(options.params) || !options.params.every(Number.isSafeInteger)) throw malformed()
    return options
  })
  const numbers = new Set(param_groups.flatMap(({ params }) => params))
  const state: ReadState['state'] = new Map()
  for (const [key, own] of states) {
    const number = /^\d+$/.test(String(key)) ? Number(key) : -1
    const entries = entriesOf(own)
    if (!entries) throw malformed()
    if (!numbers.has(number)) {
      throw new CheckpointError(
        `Optimizer.loadStateDict: expected each state entry to belong to its param_groups, got one for parameter ${shown(key)}`,
        { tensor: `state.${String(key)}` },
      )
    }
    // PyTorch stores None for state that was never created, such as the buffer of an SGD without momentum.
    state.set(number, Object.fromEntries(entries.filter(([, value]) => value !== null && value !== undefined)))
  }
  return { state, param_groups }
}

/** Return the error for a state with master weights where this optimizer keeps none. */
export function noMaster(number: number, optimizer: string): CheckpointError {
  return new CheckpointError(
    `Optimizer.loadStateDict: expected no master weights, got a float32 master of parameter ${number}. Pass masterWeights: true to ${optimizer}, and ` +
      'parameters in bfloat16 or float16, as when it was saved',
    { tensor: `state.${number}.master_param` },
  )
}

/** Copy a parameter's saved state to its device, in `dtype` where the slot names none. No scope owns the copies. */
export function copyState(
  saved: Record<string, unknown>,
  param: Tensor,
  number: number,
  dtype: DType,
  slots: Record<string, StateSlot>,
): ParamState {
  const wrong = (key: string, found: string, expected: string) =>
    new CheckpointError(
      `Optimizer.loadStateDict: expected ${expected}, but state ${key} of parameter ${number} ${found}`,
      {
        tensor: `state.${number}.${key}`,
      },
    )
  // A master may exist before the first step.
  const begun = Object.keys(saved).join() !== 'master_param'
  const lacking = Object.keys(slots).find((key) => begun && !slots[key]?.optional && !Object.hasOwn(saved, key))
  if (lacking) throw wrong(lacking, 'is missing', `it next to ${Object.keys(saved).join(', ') || 'nothing'}`)
  const copies = Object.entries(saved).flatMap(([key, value]) => {
    const slot = Object.hasOwn(slots, key) ? slots[key] : undefined
    if (!slot) throw wrong(key, 'belongs to another optimizer', Object.keys(slots).join(', '))
    const source = value instanceof Tensor || (slot === NUMBER && typeof value === 'number') ? value : undefined
    const whole = typeof source === 'number' ? [] : source?.shape
    if (source === undefined || whole?.join() !== slot.shape.join()) {
      throw wrong(key, `has ${whole ? `shape [${whole}]` : shown(value)}`, `shape [${slot.shape}]`)
    }
    if (slot.exact && source instanceof Tensor && source.dtype !== slot.dtype) {
      throw wrong(key, `is ${source.dtype}`, slot.dtype ?? 'the dtype of the parameter')
    }
    if (slot.constant) {
      const { name, make } = slot.constant
      // The last bits of the code book depend on the processor that computed it.
      const same = scope(() => (source as Tensor).to({ device: 'cpu', dtype: 'float32' }).allclose(make(), 1e-6, 0))
      if (same) return []
      throw wrong(key, `has other values`, name)
    }
    // Use the parameter's strides, since the fused kernels read both as plain memory.
    const type = slot.dtype ?? dtype
    const alike = slot !== NUMBER && slot.shape.join() === param.shape.join()
    const target = alike
      ? param.emptyLike({ dtype: type })
      : zeros([...slot.shape], { dtype: type, device: param.device })
    keepForever(target)
    if (source instanceof Tensor) target.copy_(source)
    else target.fill_(source)
    return [[key, target] as const]
  })
  return Object.fromEntries(copies)
}
