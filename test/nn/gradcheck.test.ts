import { describe, expect, test } from 'vitest'
import { functional as F, gradcheck, randn, scope, type Tensor, tensor } from '../../lib/index.js'
import { fixture } from '../helpers.js'
import { type Case, FILES, prepare } from './cases.js'

// Where PyTorch's gradient is not the derivative: the padding row of an embedding gets none, and rows may be shortened or shared out, CTC's is that of the logits
// before log-softmax, cosine similarity's takes a clamped norm as constant in part, and the least variance of a Gaussian passes
// its gradient on.
const DEFINED_OTHERWISE =
  /embedding padding|embedding (max norm|by frequency|bag .*padding)|ctcLoss|CTCLoss|cosineSimilarity 0|GaussianNLLLoss .*per row/

// Two forward passes an element: of deep stacks, whose blocks have cases of their own, only the inputs are varied.
const MOST_ELEMENTS = 300

describe.each(FILES)('%s in float64', async (name) => {
  const file = await fixture<Case>(`nn/${name}`)
  const cases = file.cases.filter((item) => item.gradients.length > 0 || item.construct?.length)

  test.each(cases.filter((item) => !DEFINED_OTHERWISE.test(item.name)))('$name', (item) =>
    scope(async () => {
      const { module, inputs, forward } = prepare(file, item, 'float64')
      const parameters = module?.parameters() ?? []
      const size = parameters.reduce((sum, parameter) => sum + parameter.numel(), 0)
      const varied = [...item.gradients.map((key) => inputs[key]!), ...(size <= MOST_ELEMENTS ? parameters : [])]
      const memory = varied.map((tensor) => tensor.detach())
      const names = Object.entries(forward()).flatMap(([key, output]) => (output.requiresGrad ? [key] : []))
      const passes = await gradcheck((...given) => {
        // gradcheck hands in changed copies; the module must see them in its own parameters.
        for (const [i, tensor] of varied.entries()) if (given[i] !== tensor) tensor.setData(given[i]!)
        const results = forward()
        const outputs = names.map((key) => results[key]!.clone())
        for (const [i, tensor] of varied.entries()) if (given[i] !== tensor) tensor.setData(memory[i]!)
        return outputs
      }, varied)
      expect(passes).toBe(true)
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
