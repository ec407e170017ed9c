import { describe, expect, it } from 'vitest'
import { Module } from '../../../lib/index.js'
import { Residence } from '../../../lib/systems/usdm/network/residence.js'

describe('Residence', () => {
  it('has a part on its device from the first who comes to the last who leaves', () => {
    const moves: unknown[] = []
    class Part extends Module {
      override to(options: object): this {
        moves.push(options)
        return this
      }
    }
    const residence = new Residence([new Part(), null, {}], 'cuda:0')
    {
      using _one = residence.enter()
      const two = residence.enter()
      two[Symbol.dispose]()
      two[Symbol.dispose]()
      expect(moves).toEqual([{ device: 'cuda:0' }])
    }
    expect(moves).toEqual([{ device: 'cuda:0' }, { device: 'cpu' }])
    const staying = new Residence([new Part()], undefined)
    staying.enter()[Symbol.dispose]()
    expect(moves).toHaveLength(2)
  })

  it('is on the CPU again where the device has no room, and is tried anew', () => {
    const moves: unknown[] = []
    let room = false
    class Part extends Module {
      override to(target: Parameters<Module['to']>[0] = {}): this {
        const { device } = typeof target === 'string' ? { device: target } : target
        moves.push(device)
        if (device === 'cuda:0' && !room) throw new Error('out of memory')
        return this
      }
    }
    const residence = new Residence([new Part()], 'cuda:0')
    expect(() => residence.enter()).toThrow('out of memory')
    expect(moves).toEqual(['cuda:0', 'cpu'])
    room = true
    residence.enter()[Symbol.dispose]()
    expect(moves.slice(2)).toEqual(['cuda:0', 'cpu'])
  })
})
