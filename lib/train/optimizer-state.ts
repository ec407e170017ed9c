import { shown } from '../base/check.js'
import { CheckpointError } from '../base/errors.js'
import { type DType, scope, Tensor, zeros } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'

/** PyTorch's `torch.optim.Optimizer.state_dict()`, key for key: parameters are numbered through all groups. */
export interface OptimizerState {
  state: Record<string, Record<string, Tensor>>
  param_groups: (Record<string, unknown> & { params: number[] })[]
}

/** One parameter's state: names and meaning are PyTorch's. */
export type ParamState = Record<string, Tensor>

/** What an entry of a parameter's state is. */
export interface StateSlot {
  shape: readonly number[]
  /** Default: that of the tensor that steps are taken on. */
  dtype?: DType
  /** It may be left out. */
  optional?: boolean
  /** A saved tensor of another dtype is refused, not converted. */
  exact?: boolean
  /** It is always this, looked at and not kept. */
  constant?: { name: string; make(): Tensor }
}

/** A count, or another number of its own: float32 whatever the parameter is. Older files have plain numbers. */
export const NUMBER: StateSlot = { shape: [], dtype: 'float32' }

/** A saved state whose dictionaries are objects, with lists for tuples. */
export interface ReadState {
  state: Map<number, Record<string, unknown>>
  param_groups: OptimizerState['param_groups']
}

/** A dictionary of a file: one with keys that are no strings comes as a Map. */
function entriesOf(value: unknown): [unknown, unknown][] | undefined {
  if (typeof value !== 'object' || value === null || value instanceof Tensor || Array.isArray(value)) return undefined
  return value instanceof Map ? [...value] : Object.entries(value)
}

/** Throws `CheckpointError` unless it looks like a state, and all of it is for parameters that are there. */
export function readState(dict: unknown): ReadState {
  const malformed = () =>
    new CheckpointError('An optimiser state needs state and param_groups, as stateDict() returns them', {})
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
        `The optimiser state has an entry for parameter ${shown(key)}, which is in none of its param_groups`,
        { tensor: `state.${String(key)}` },
      )
    }
    // What was never made, such as the buffer of an SGD without momentum, is None in PyTorch.
    state.set(number, Object.fromEntries(entries.filter(([, value]) => value !== null && value !== undefined)))
  }
  return { state, param_groups }
}

/** Of a state that has a master where this optimiser keeps none. */
export function noMaster(number: number, optimizer: string): CheckpointError {
  return new CheckpointError(
    `The state of parameter ${number} has a float32 master of the weight: give ${optimizer} masterWeights: true and ` +
      'parameters in bfloat16 or float16, as it was saved with',
    { tensor: `state.${number}.master_param` },
  )
}

/** Copies of a parameter's saved state, on its device and in `dtype` where the slot names none; no scope owns them. */
export function copyState(
  saved: Record<string, unknown>,
  param: Tensor,
  number: number,
  dtype: DType,
  slots: Record<string, StateSlot>,
): ParamState {
  const wrong = (key: string, found: string, expected: string) =>
    new CheckpointError(`State ${key} of parameter ${number} ${found}, ${expected}`, {
      tensor: `state.${number}.${key}`,
    })
  // A master may be there before the first step is.
  const begun = Object.keys(saved).join() !== 'master_param'
  const lacking = Object.keys(slots).find((key) => begun && !slots[key]?.optional && !Object.hasOwn(saved, key))
  if (lacking) throw wrong(lacking, 'is missing', `there is only ${Object.keys(saved).join(', ') || 'nothing'}`)
  const copies = Object.entries(saved).flatMap(([key, value]) => {
    const slot = Object.hasOwn(slots, key) ? slots[key] : undefined
    if (!slot) throw wrong(key, 'belongs to another optimiser', `expected ${Object.keys(slots).join(', ')}`)
    const source = value instanceof Tensor || (slot === NUMBER && typeof value === 'number') ? value : undefined
    const whole = typeof source === 'number' ? [] : source?.shape
    if (source === undefined || whole?.join() !== slot.shape.join()) {
      throw wrong(key, `has ${whole ? `shape [${whole}]` : shown(value)}`, `expected shape [${slot.shape}]`)
    }
    if (slot.exact && source instanceof Tensor && source.dtype !== slot.dtype) {
      throw wrong(key, `is ${source.dtype}`, `expected ${slot.dtype}`)
    }
    if (slot.constant) {
      const { name, make } = slot.constant
      // Its last bits depend on the processor that made it.
      const same = scope(() => (source as Tensor).to({ device: 'cpu', dtype: 'float32' }).allclose(make(), 1e-6, 0))
      if (same) return []
      throw wrong(key, `is not ${name}`, 'which it has to be')
    }
    // Memory laid out as the parameter's, which the fused kernels walk along with it.
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
