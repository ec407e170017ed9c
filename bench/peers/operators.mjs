import { readFileSync } from 'node:fs'
import { functional, noGrad, onesLike, ops, randint, randn, scope } from 'voxtorch'
import { rates } from './rates.mjs'
import { serve, timedBlocks } from './serve.mjs'

const { sizes, operators } = JSON.parse(readFileSync(new URL('./operators.json', import.meta.url), 'utf8'))
const camel = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase())
const camelKeys = (options) => Object.fromEntries(Object.entries(options).map(([key, value]) => [camel(key), value]))

function input(given) {
  if (Array.isArray(given)) return randn(given)
  const { shape, below, bool } = given
  const whole = randint(0, below, shape)
  return bool ? whole.to({ dtype: 'bool' }) : whole
}

/** Returns the call of an operator on tensors of its own, made on first use, and those that need a gradient. */
function callOf({ name, size, args = [], options, list, last, middle }, i) {
  const tensors = sizes[size][i].map(input)
  const call = ops[camel(name)]
  const rest = [...args, ...(options === undefined ? [] : [camelKeys(options)])]
  let given = list ? [tensors] : tensors
  if (last) {
    const width = tensors[0].shape.at(-1)
    given = [tensors[0], [width]]
  }
  if (middle !== undefined) given = [tensors[0], middle, tensors[1]]
  if (name === 'embedding') return { run: () => ops.embedding(tensors[0], tensors[1]), tensors }
  if (name === 'cross_entropy') return { run: () => functional.crossEntropy(tensors[0], tensors[1]), tensors }
  return { run: () => call(...given, ...rest), tensors }
}

function cases() {
  const all = {}
  for (const [index, operator] of operators.entries()) {
    for (let i = 0; i < 3; i += 1) {
      let made
      const get = () => (made ??= callOf(operator, i))
      all[`${index}.${i}.forward`] = (n) => {
        const { run } = get()
        noGrad(() => {
          for (let done = 0; done < n; done += 1) scope(() => void run())
        })
      }
      all[`${index}.${i}.backward`] = async (n) => {
        const { run, tensors } = get()
        const leaves = tensors.filter(({ dtype }) => dtype === 'float32')
        for (const one of leaves) one.requiresGrad_(true)
        for (let done = 0; done < n; done += 1) {
          await scope(async () => {
            const output = run()
            await output.backward({ gradient: onesLike(output) })
          })
          for (const one of leaves) one.grad = null
        }
        for (const one of leaves) one.requiresGrad_(false)
      }
    }
  }
  return all
}

await serve(timedBlocks({ ...cases(), ...rates }))
