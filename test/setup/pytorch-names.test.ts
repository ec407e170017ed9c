import { describe, expect, it } from 'vitest'
import * as voxtorch from '../../lib/root.js'
import { nameRows, namesPage, pytorch, reasons } from '../../scripts/docs/names-page.js'

/** How many of PyTorch's names there are at least. Raise a number when names are added. */
const LEAST: Record<string, number> = {
  'torch.nn.functional': 128,
  'torch.nn': 160,
  'torch.nn.init': 15,
  'torch.fft': 22,
  'torch.linalg': 40,
  'torch.special': 56,
  'torch.func': 11,
  'torch.distributions': 61,
  'torch.optim': 16,
  'torch.optim.lr_scheduler': 16,
  'torch.Tensor': 551,
}

/** Return the value that a name of the table stands for, such as `functional.relu`; getters of Tensor are not called. */
function named(here: string): unknown {
  const [first = '', second] = here.split('.')
  const owner =
    first === 'tensor' ? voxtorch.Tensor.prototype : second === undefined ? voxtorch : Reflect.get(voxtorch, first)
  return Object.getOwnPropertyDescriptor(owner, second ?? first)?.get ?? Reflect.get(owner, second ?? first)
}

const rows = nameRows()

describe("PyTorch's names", () => {
  it('are those of torch 2.13 in every namespace of the list', () => {
    expect(pytorch.torch).toBe('2.13.0')
    expect([...rows.keys()]).toEqual(Object.keys(LEAST))
  })

  it.each(Object.entries(LEAST))(
    '%s has at least %i of them, each a function, class or property',
    (namespace, least) => {
      const present = rows.get(namespace)!.flatMap(({ here }) => here ?? [])
      expect(present.length).toBeGreaterThanOrEqual(least)
      expect(present.filter((here) => typeof named(here) !== 'function' && !/^tensor\./.test(here))).toEqual([])
    },
  )

  it('have a reason where they are missing, and only there', () => {
    const missing = [...rows].flatMap(([namespace, names]) =>
      names
        .filter(({ here, reason }) => here === undefined && reason === undefined)
        .map(({ there }) => `${namespace}.${there}`),
    )
    expect(missing).toEqual([])
    const needless = Object.entries(reasons).flatMap(([namespace, named]) => {
      const absent = new Set(
        (rows.get(namespace) ?? []).filter(({ here }) => here === undefined).map(({ there }) => there),
      )
      return Object.keys(named)
        .filter((name) => name !== '*' && !absent.has(name))
        .map((name) => `${namespace}.${name}`)
    })
    expect(needless).toEqual([])
  })

  it('make a page in which nothing outside of code is a tag', () => {
    const page = namesPage()
    expect(page.match(/^\| `/gm)).toHaveLength([...rows.values()].reduce((sum, names) => sum + names.length, 0))
    expect(page.replace(/`[^`\n]*`/g, '')).not.toMatch(/[<>]/)
  })
})
