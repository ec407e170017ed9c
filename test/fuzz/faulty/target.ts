import { DataError, zeros } from '../../../lib/index.js'
import type { FuzzTarget } from '../targets/target.js'

const kept: unknown[] = []

function wait(milliseconds: number): void {
  const end = Date.now() + milliseconds
  while (Date.now() < end) {}
}

/** A reader with a fault that the fuzz must find, at an input of its name. */
export const faulty = (name: string): FuzzTarget => ({
  name,
  seeds: () => [Buffer.from('sound'), Buffer.from(name)],
  run(bytes) {
    switch (Buffer.from(bytes).toString('latin1')) {
      case 'hang':
        return wait(60_000)
      case 'crash':
        return process.abort()
      case 'slow':
        return wait(1200)
      case 'memory':
        kept.push(Buffer.alloc(300 * 2 ** 20, 1))
        return
      case 'leak':
        kept.push(zeros([1]))
        return
      case 'untyped':
        throw new TypeError('a fault of the reader')
      case 'typed':
        throw new DataError('not a fault')
    }
  },
})
