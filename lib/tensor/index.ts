import * as gradients from './autograd.js'

export type { Complex } from '../native/encode.js'
export { AutogradFunction, detectAnomaly, FunctionContext } from './autograd.js'
export { checkpoint } from './checkpoint.js'
export * from './create.js'
export {
  areDeterministicAlgorithmsEnabled,
  getDefaultDtype,
  setDefaultDtype,
  useDeterministicAlgorithms,
} from './default-dtype.js'
export type { Device, DType, TypedArray } from './dtype.js'
export { type GradcheckOptions, gradcheck } from './gradcheck.js'
export { ops } from './methods.js'
export { fft, linalg, special } from './namespaces.js'
export { type PrintOptions, setPrintoptions } from './print.js'
export { unravelIndex } from './python-forms.js'
export { Generator, getRngState, manualSeed, setRngState } from './random.js'
export * from './runtime.js'
export {
  type AutocastOptions,
  autocast,
  enableGrad,
  getDefaultDevice,
  inferenceMode,
  isGradEnabled,
  keepAlive,
  keepForever,
  noGrad,
  scope,
  setDefaultDevice,
  withDevice,
} from './scope.js'
export { type Index, isTensor, type NestedArray, type Scalar, slice, Tensor } from './tensor.js'

/** Functions that return gradients without using the `grad` fields: `autograd.grad`, `autograd.backward`. */
export const autograd = { grad: gradients.grad, backward: gradients.backward }
