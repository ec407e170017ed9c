import { optionsOf, requireFunction, shown } from '../base/arguments.js'
import { ConfigError, GradientError } from '../base/errors.js'
import { grad } from './autograd.js'
import { tensor, zeros } from './create.js'
import { dtypeFacts } from './dtype.js'
import { enableGrad, noGrad, scope } from './scope.js'
import { Tensor } from './tensor.js'

export interface GradcheckOptions {
  /** Step of the finite differences. Default 1e-6. */
  eps?: number
  /** Absolute tolerance. Default 1e-5. */
  atol?: number
  /** Relative tolerance. Default 1e-3. */
  rtol?: number
}

/**
 * Compare the gradients of `fn` with central finite differences, element by element, for every input that requires a gradient.
 * Those inputs must be float64: in float32, rounding errors dominate the differences.
 *
 * @throws GradientError that names the input and the elements that differ; otherwise resolves to true
 */
export async function gradcheck(
  fn: (...inputs: Tensor[]) => Tensor | readonly Tensor[],
  inputs: readonly Tensor[],
  options: GradcheckOptions = {},
): Promise<boolean> {
  const { eps = 1e-6, atol = 1e-5, rtol = 1e-3 } = optionsOf(options, 'gradcheck', ['eps', 'atol', 'rtol'])
  requireFunction(fn)
  for (const limit of [eps, atol, rtol]) {
    if (typeof limit !== 'number')
      throw new ConfigError(`gradcheck: expected eps, atol and rtol to be numbers, got ${shown(limit)}`)
  }
  if (!Array.isArray(inputs) || !inputs.every((input) => input instanceof Tensor)) {
    throw new ConfigError(`gradcheck: expected an array of tensors, got ${shown(inputs)}`)
  }
  const checked = inputs.map((input, index) => ({ input, index })).filter(({ input }) => input.requiresGrad)
  if (checked.length === 0) throw new ConfigError('gradcheck: expected at least one input with requiresGrad, got none')
  for (const { input, index } of checked) {
    if (input.dtype !== 'float64') {
      throw new ConfigError(`gradcheck: expected float64 inputs, got ${input.dtype} for input ${index}`, { index })
    }
  }
  return scope(async () => {
    const outputs = listOf(enableGrad(() => fn(...inputs)))
    for (const [o, output] of outputs.entries()) {
      if (!output.requiresGrad || dtypeFacts(output.dtype).kind !== 'float') continue
      const analytic = await jacobian(
        output,
        checked.map(({ input }) => input),
      )
      for (const [c, { input, index }] of checked.entries()) {
        const numeric = numericJacobian((...all) => listOf(fn(...all))[o] as Tensor, inputs, input, eps)
        compare(analytic[c] as number[][], numeric, { atol, rtol, index, output: o })
      }
    }
    return true
  })
}

function listOf(result: Tensor | readonly Tensor[]): readonly Tensor[] {
  const list = result instanceof Tensor ? [result] : result
  if (Array.isArray(list) && list.every((output) => output instanceof Tensor)) return list
  throw new ConfigError(`gradcheck: expected fn to return a tensor or an array of tensors, got ${shown(result)}`)
}

/** Return for each input and output element (row) the gradient of each input element. */
async function jacobian(output: Tensor, inputs: readonly Tensor[]): Promise<number[][][]> {
  const rows: number[][][] = inputs.map(() => [])
  const count = output.numel()
  for (let row = 0; row < count; row += 1) {
    await scope(async () => {
      const seed = zeros([count], { dtype: 'float64' }).setAt([row], 1).to(output.dtype).reshape(output.shape)
      const gradients = await grad(output, inputs, { gradOutputs: [seed], retainGraph: true, allowUnused: true })
      gradients.forEach((gradient, i) => {
        const size = inputs[i]!.numel()
        rows[i]!.push(gradient === null ? new Array(size).fill(0) : Array.from(gradient.dataSync() as Float64Array))
      })
    })
  }
  return rows
}

function numericJacobian(
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  input: Tensor,
  eps: number,
): number[][] {
  return noGrad(() => {
    const values = Array.from(input.dataSync() as Float64Array)
    const at = (element: number, change: number): number[] =>
      scope(() => {
        const moved = [...values]
        moved[element] = moved[element]! + change
        const replacement = tensor(moved, { dtype: 'float64', device: input.device }).reshape(input.shape)
        const result = fn(...inputs.map((other) => (other === input ? replacement : other)))
        return Array.from(result.to('float64').dataSync() as Float64Array)
      })
    const columns = values.map((_, element) => {
      const above = at(element, eps)
      const below = at(element, -eps)
      return above.map((value, i) => (value - below[i]!) / (2 * eps))
    })
    return (columns[0] ?? []).map((_, row) => columns.map((column) => column[row]!))
  })
}

function compare(
  analytic: readonly number[][],
  numeric: readonly number[][],
  limits: { atol: number; rtol: number; index: number; output: number },
): void {
  const { atol, rtol, index, output } = limits
  numeric.forEach((row, r) => {
    row.forEach((expected, c) => {
      const actual = analytic[r]![c]!
      if (Math.abs(actual - expected) <= atol + rtol * Math.abs(expected)) return
      throw new GradientError(
        `gradcheck: expected ${expected}, from finite differences, as gradient of output ${output}[${r}] with respect to input ${index}[${c}], got ${actual}`,
        { input: index, output, element: c, actual, expected },
      )
    })
  })
}
