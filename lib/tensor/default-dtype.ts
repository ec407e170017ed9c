import { requireBoolean, requireOneOf, requireOptions } from '../base/check.js'
import { op } from '../native/call.js'
import { type DType, dtypeFacts, dtypes, NETWORK_DTYPES } from './dtype.js'

const setDtype = op('voxtorch::set_default_dtype')
const dtypeCode = op('voxtorch::default_dtype') as () => number
const setDeterministic = op('voxtorch::set_deterministic_algorithms')
const isDeterministic = op('voxtorch::deterministic_algorithms') as () => boolean

/**
 * Set the dtype of new floating-point tensors without a `dtype`: of `zeros`, `randn`, layers, number lists with a fraction, and
 * quotients of integers. Default: 'float32'. As in PyTorch it holds for the whole process, other threads included.
 * @throws ConfigError for a dtype that is not float32, float64, bfloat16 or float16
 */
export function setDefaultDtype(dtype: DType): void {
  requireOneOf('setDefaultDtype', 'dtype', dtype, NETWORK_DTYPES)
  setDtype(dtype)
}

/** Return the dtype of new floating-point tensors without a `dtype`. */
export function getDefaultDtype(): DType {
  const code = dtypeCode()
  return dtypes.find((one) => dtypeFacts(one).code === code) as DType
}

/**
 * Let operators throw that have no deterministic implementation for their arguments on the device, or with `warnOnly` warn. Those
 * that have one use it. It holds for the whole process.
 */
export function useDeterministicAlgorithms(mode: boolean, options: { warnOnly?: boolean } = {}): void {
  requireBoolean('useDeterministicAlgorithms', 'mode', mode)
  requireOptions('useDeterministicAlgorithms', options, ['warnOnly'])
  const { warnOnly = false } = options
  requireBoolean('useDeterministicAlgorithms', 'warnOnly', warnOnly)
  setDeterministic(mode, warnOnly)
}

/** Return whether {@link useDeterministicAlgorithms} is on. */
export function areDeterministicAlgorithmsEnabled(): boolean {
  return isDeterministic()
}
