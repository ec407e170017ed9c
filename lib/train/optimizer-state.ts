import { shown } from '../data/check.js'
import { CheckpointError } from '../native/errors.js'
import { type DType, Tensor, tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'

/** PyTorch's `torch.optim.Optimizer.state_dict()`, key for key: parameters are numbered through all groups. */
export interface OptimizerState {
  state: Record<string, Record<string, Tensor>>
  param_groups: (Record<string, unknown> & { params: number[] })[]
}

/** One parameter's state: names and meaning are PyTorch's. */
export type ParamState = Record<string, Tensor>

/** Throws `CheckpointError` unless it looks like one. */
export function checkState(dict: OptimizerState): OptimizerState {
  const isObject = (value: unknown) => typeof value === 'object' && value !== null
  const groups = dict?.param_groups
  const good = isObject(dict?.state) && Object.values(dict.state).every(isObject) && Array.isArray(groups)
  if (good && groups.every((group) => isObject(group) && Array.isArray(group.params))) return dict
  throw new CheckpointError('An optimiser state needs state and param_groups, as stateDict() returns them', {})
}

/** Of a state that has a master where this optimiser keeps none. */
export function noMaster(number: number, optimizer: string): CheckpointError {
  return new CheckpointError(
    `The state of parameter ${number} has a float32 master of the weight: give ${optimizer} masterWeights: true and ` +
      'parameters in bfloat16 or float16, as it was saved with',
    { tensor: `state.${number}.master_param` },
  )
}

/** Copies of a parameter's saved state, on its device and in `dtype`; no scope owns them. */
export function copyState(saved: ParamState, param: Tensor, number: number, dtype: DType): ParamState {
  const copies = Object.entries(saved).map(([key, value]) => {
    // Step counts are float32 scalars whatever the parameter is; older files have plain numbers.
    const step = key === 'step'
    const source = value instanceof Tensor ? value : step && typeof value === 'number' ? value : undefined
    const expected = step ? [] : param.shape
    if (source === undefined || (source instanceof Tensor && source.shape.join() !== expected.join())) {
      const found = source instanceof Tensor ? `shape [${source.shape}]` : shown(value)
      throw new CheckpointError(`State ${key} of parameter ${number} has ${found}, expected shape [${expected}]`, {
        tensor: `state.${number}.${key}`,
      })
    }
    const target = step ? tensor(0, { dtype: 'float32', device: param.device }) : param.emptyLike({ dtype })
    keepForever(target)
    if (source instanceof Tensor) target.copy_(source)
    else target.fill_(source)
    return [key, target] as const
  })
  return Object.fromEntries(copies)
}

/** PyTorch's spelling of an option. */
