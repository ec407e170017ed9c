import { expect, it } from 'vitest'
import { LruCache } from '../../lib/base/lru-cache.js'

it('LruCache removes the least recently used values, and those that are replaced', () => {
  const removed: string[] = []
  const cache = new LruCache<string>(
    6,
    ({ length }) => length,
    (value) => removed.push(value),
  )
  cache.put('a', 'aa')
  cache.put('b', 'bbb')
  expect([cache.get('a'), cache.sizeAt('b'), cache.size, cache.length]).toEqual(['aa', 3, 5, 2])
  cache.put('c', 'cccc')
  expect([removed, cache.get('b'), cache.size]).toEqual([['bbb'], undefined, 6])
  cache.put('a', 'a')
  expect([removed, cache.size]).toEqual([['bbb', 'aa'], 5])
  // A value that is larger than the limit is not stored, and removes nothing.
  cache.put('d', 'ddddddd')
  expect([cache.get('d'), cache.length]).toEqual([undefined, 2])
  cache.clear()
  expect([removed, cache.size, cache.length]).toEqual([['bbb', 'aa', 'cccc', 'a'], 0, 0])
})
