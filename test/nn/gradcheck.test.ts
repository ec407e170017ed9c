import { describe, expect, test } from 'vitest'
import {
  autograd,
  functional as F,
  gradcheck,
  noGrad,
  rand,
  randn,
  scope,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { fixture } from '../helpers.js'
import { type Case, FILES, prepare } from './cases.js'

// Where PyTorch's gradient is not the derivative: the padding row of an embedding gets none, and rows may be shortened or shared out, CTC's is that of the logits
// before log-softmax, cosine similarity's takes a clamped norm as constant in part, and the least variance of a Gaussian passes
// its gradient on.
const DEFINED_OTHERWISE =
  /embedding padding|embedding (max norm|by frequency|bag .*padding)|ctcLoss|CTCLoss|cosineSimilarity 0|GaussianNLLLoss .*per row/

// Of deep stacks, whose blocks have cases of their own, only the inputs are varied.
const MOST_ELEMENTS = 300

// Each tensor moves along so many random directions. A wrong entry of the Jacobian is one term of a derivative along one, which
// is a sum, so the tolerances are 100 times smaller than gradcheck's own.
const DIRECTIONS = 8
const [EPS, ATOL, RTOL] = [1e-6, 1e-7, 1e-5]

describe.each(FILES)('%s in float64', async (name) => {
  const file = await fixture<Case>(`nn/${name}`)
  const cases = file.cases.filter((item) => item.gradients.length > 0 || item.construct?.length)

  test.each(cases.filter((item) => !DEFINED_OTHERWISE.test(item.name)))('$name', (item) =>
    scope(async () => {
      const { module, inputs, forward } = prepare(file, item, 'float64')
      const parameters = module?.parameters() ?? []
      const size = parameters.reduce((sum, parameter) => sum + parameter.numel(), 0)
      const varied = [...item.gradients.map((key) => inputs[key]!), ...(size <= MOST_ELEMENTS ? parameters : [])]
      const memory = varied.map((tensor) => tensor.detach().clone())
      const outputs = Object.entries(forward()).filter(([, output]) => output.requiresGrad)
      const random = ({ shape }: Tensor) => rand(shape, { dtype: 'float64' })
      // In [0.5, 1.5), so that no output hides another.
      const weights = outputs.map(([, output]) => random(output).add(0.5))
      const sum = (results = forward()) =>
        outputs.map(([key], i) => results[key]!.mul(weights[i]!).sum()).reduce((a, b) => a.add(b))
      const at = (i: number, step: Tensor) =>
        noGrad(() => {
          varied[i]!.setData(memory[i]!.add(step))
          return sum().item() as number
        })
      const gradients = await autograd.grad(sum(), varied, { allowUnused: true })
      expect(gradients.some((gradient) => gradient !== null)).toBe(true)
      for (const [i, tensor] of varied.entries()) {
        for (let k = 0; k < DIRECTIONS; k += 1) {
          const direction = random(tensor).mul(2).sub(1)
          const numeric = (at(i, direction.mul(EPS)) - at(i, direction.mul(-EPS))) / (2 * EPS)
          const analytic = (gradients[i]?.mul(direction).sum().item() ?? 0) as number
          const place = `direction ${k} of tensor ${i}, [${tensor.shape}]`
          expect(Math.abs(analytic - numeric), place).toBeLessThanOrEqual(ATOL + RTOL * Math.abs(numeric))
        }
        tensor.setData(memory[i]!)
      }
      module?.dispose()
    }),
  )
})

test('CTC of log-softmax in float64', () =>
  scope(async () => {
    const logits = randn([6, 2, 4], { dtype: 'float64', requiresGrad: true })
    const targets = tensor([
      [1, 2, 2],
      [3, 1, 0],
    ])
    const loss = (x: Tensor) => F.ctcLoss(F.logSoftmax(x, -1), targets, [6, 5], [3, 2])
    expect(await gradcheck(loss, [logits])).toBe(true)
  }))
