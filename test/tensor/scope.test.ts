import { describe, expect, test } from 'vitest'
import {
  inferenceMode,
  keepAlive,
  keepForever,
  memoryStats,
  noGrad,
  ones,
  Parameter,
  scope,
  type Tensor,
  zeros,
} from '../../lib/index.js'
import { counts } from './counts.js'

const live = () => memoryStats().liveTensors
const _tick = () => new Promise((resolve) => setImmediate(resolve))

/** The change of the live count while `fn` runs, which must be synchronous: garbage collection cannot come between. */
function change(fn: () => void): number {
  const before = live()
  fn()
  return live() - before
}

describe('a scope', () => {
  test('frees what is made inside and keeps what is returned', () => {
    let inside = 0
    let result: Tensor | undefined
    expect(
      change(() => {
        const before = live()
        result = scope(() => {
          const x = ones([2])
          const y = x.add(1)
          inside = live() - before
          return y.mul(2)
        })
      }),
    ).toBe(1)
    expect(inside).toBe(2)
    expect(result!.toArray()).toEqual([4, 4])
    expect(change(() => result!.dispose())).toBe(-1)
  })

  test('keeps tensors in arrays, objects, maps, sets and class instances, at any depth', () => {
    class Pair {
      readonly values = new Map<string, unknown>()
      constructor(
        readonly left: Tensor,
        readonly list: unknown[],
      ) {}
    }
    const kept: Tensor[] = []
    expect(
      change(() => {
        const pair = scope(() => {
          const make = () => {
            const made = ones([1])
            kept.push(made)
            return made
          }
          const result = new Pair(make(), [make(), { deep: [[make()]] }, new Set([make()]), 3, null, 'text'])
          result.values.set('a', make())
          result.values.set('self', result)
          ones([5])
          return result
        })
        expect(pair.left.disposed).toBe(false)
      }),
    ).toBe(5)
    expect(kept.map((value) => value.disposed)).toEqual([false, false, false, false, false])
    for (const value of kept) value.dispose()
  })

  test('a tensor that is a map’s key is kept', () => {
    const map = scope(() => new Map([[ones([1]), 1]]))
    const [key] = map.keys()
    expect(key!.disposed).toBe(false)
    key!.dispose()
  })

  test('nests: what is returned belongs to the scope around', () => {
    let inner: Tensor | undefined
    expect(
      change(() => {
        scope(() => {
          inner = scope(() => ones([1]).add(1))
          expect(inner.toArray()).toEqual([2])
        })
      }),
    ).toBe(0)
    expect(inner!.disposed).toBe(true)
  })

  test('what was made outside is left alone, whether returned or not', () => {
    const outer = ones([1])
    expect(
      change(() => {
        expect(scope(() => outer)).toBe(outer)
        scope(() => {
          outer.add_(1)
        })
        expect(scope(() => scope(() => [outer]))[0]).toBe(outer)
      }),
    ).toBe(0)
    expect(outer.item()).toBe(2)
    outer.dispose()
  })

  test('an error frees everything, and the scope is closed', () => {
    const scopes = memoryStats().liveScopes
    expect(
      change(() => {
        expect(() =>
          scope(() => {
            ones([1])
            scope(() => {
              ones([1])
              throw new Error('mine')
            })
          }),
        ).toThrow('mine')
      }),
    ).toBe(0)
    expect(memoryStats().liveScopes).toBe(scopes)
    expect(scope(() => 3)).toBe(3)
  })

  test('what an error carries is not kept, but does not crash', () => {
    let carried: Tensor | undefined
    try {
      scope(() => {
        carried = ones([1])
        throw Object.assign(new Error('mine'), { tensor: carried })
      })
    } catch {}
    expect(carried!.disposed).toBe(true)
    expect(() => carried!.item()).toThrow(expect.objectContaining({ name: 'DisposedError' }))
  })

  test('keep moves a tensor one scope out, keepForever out of all', () => {
    let kept: Tensor | undefined
    let forever: Tensor | undefined
    let several: Tensor[] = []
    expect(
      change(() => {
        scope(() => {
          scope(() => {
            kept = keepAlive(ones([1]))
            several = keepAlive([ones([1]), ones([1])])
            forever = keepForever(ones([1]))
            ones([1])
          })
          expect([kept!.disposed, several[1]!.disposed, forever!.disposed]).toEqual([false, false, false])
        })
        expect([kept!.disposed, several[0]!.disposed, forever!.disposed]).toEqual([true, true, false])
        forever!.dispose()
      }),
    ).toBe(0)
    const outside = ones([1])
    expect(keepAlive(outside)).toBe(outside)
    expect(keepForever(outside)).toBe(outside)
    outside.dispose()
  })

  test('dispose inside a scope, and twice', () => {
    expect(
      change(() => {
        scope(() => {
          const x = ones([1])
          x.dispose()
          x.dispose()
          expect(x.disposed).toBe(true)
          return x
        })
      }),
    ).toBe(0)
  })

  test('a freed slot is not the new tensor’s', () => {
    const stale = ones([1])
    stale.dispose()
    const fresh = zeros([1])
    expect(stale.disposed).toBe(true)
    stale.dispose()
    expect(fresh.item()).toBe(0)
    expect(() => stale.item()).toThrow(expect.objectContaining({ name: 'DisposedError' }))
    fresh.dispose()
  })

  test('using', () => {
    expect(
      change(() => {
        const x = ones([2])
        {
          using y = x.add(1)
          expect(y.disposed).toBe(false)
        }
        x[Symbol.dispose]()
      }),
    ).toBe(0)
  })

  test('views keep memory, handles do not', () => {
    expect(
      change(() => {
        const row = scope(() => ones([100, 10]).at(3))
        expect(row.toArray()).toEqual(new Array(10).fill(1))
        row.dispose()
      }),
    ).toBe(0)
  })

  test('a parameter belongs to no scope', () => {
    let parameter: Parameter | undefined
    scope(() => {
      parameter = new Parameter(ones([1]))
    })
    expect(parameter!.disposed).toBe(false)
    parameter!.dispose()
  })

  test('in noGrad and inferenceMode', () => {
    expect(
      change(() => {
        noGrad(() => scope(() => void ones([1]).add(1)))
        scope(() => noGrad(() => void inferenceMode(() => ones([1]).add(1))))
      }),
    ).toBe(0)
  })

  test('a long and cyclic result', () => {
    interface Node {
      next?: Node
      value?: Tensor
    }
    const chain = scope(() => {
      const first: Node = {}
      let last = first
      for (let i = 0; i < 100_000; i += 1) {
        last.next = {}
        last = last.next
      }
      last.value = ones([1])
      last.next = first
      return first
    })
    let node = chain
    while (node.value === undefined) node = node.next!
    expect(node.value.disposed).toBe(false)
    node.value.dispose()
  })

  test('a result whose accessor throws closes the scope all the same', () => {
    const before = counts()
    try {
      scope(() => ({
        made: ones([1]).add(1),
        get bad(): number {
          throw new Error('accessor')
        },
      })).made.dispose()
    } catch {
      // Either is right, so long as nothing is left.
    }
    expect(counts()).toEqual(before)
  })
})
