import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import type { Module } from '../../../lib/index.js'
import { Usdm, type UsdmEvent } from '../../../lib/systems/usdm/index.js'
import { relativeError, settledTensors } from '../../helpers.js'
import {
  chirp,
  SCRIPT,
  scriptedLlm,
  tinyLlm,
  tinySpeech,
  tinyTokenizer,
  tinyUnits,
} from '../../systems/usdm/tiny-parts.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-device-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const tokenizer = await tinyTokenizer(join(folder, 'text'))
const units = await tinyUnits()
const parts = { llm: tinyLlm(tokenizer.vocabSize), tokenizer, units, ...tinySpeech() }
const { llm, voicebox, vocoder } = parts
const modules: Record<string, Module> = { hearing: units.encoder.network, writing: llm, speaking: voicebox, sounding: vocoder } // biome-ignore format: one line
const options = { maxTextTokens: 6, maxUnits: 40, strict: true, steps: 2, seed: 3, reference: chirp(0.5) } as const

/** The parts that are on the device. */
const away = () =>
  Object.entries(modules).flatMap(([name, module]) => (module.parameters()[0]?.device === 'cpu' ? [] : [name]))

/** Notes down what is on the device whenever a part works. */
function watched(): { [part: string]: Set<string> } {
  const seen: { [part: string]: Set<string> } = {}
  const watch = (name: string, target: object, method: string) => {
    const own = Reflect.get(target, method) as (...given: unknown[]) => unknown
    Reflect.set(target, method, (...given: unknown[]) => {
      ;(seen[name] ??= new Set()).add(away().join())
      return own.apply(target, given)
    })
  }
  watch('hearing', units.encoder.network, 'forward')
  watch('writing', llm, 'stream')
  watch('speaking', voicebox, 'forward')
  watch('sounding', vocoder, 'forward')
  return seen
}

describe('a USDM whose parts are on the device only while they work', () => {
  for (const module of Object.values(modules)) module.to({ device: 'cpu' })
  const plain = new Usdm(parts)
  const usdm = new Usdm({ ...parts, offload: 'cuda' })

  it('answers as on the CPU, and each has the device to itself', async () => {
    const wanted = await plain.respond(chirp(0.4), options)
    expect(wanted.units.length).toBeGreaterThan(0)
    const before = await settledTensors()
    const seen = watched()
    const reply = await usdm.respond(chirp(0.4), options)
    expect({ ...reply, wav: null }).toEqual({ ...wanted, wav: null })
    expect(relativeError(reply.wav?.samples as Float32Array, wanted.wav?.samples as Float32Array)).toBeLessThan(1e-4)
    const only = (...names: string[]) => new Set([names.join()])
    expect(seen).toEqual({
      hearing: only('hearing'),
      writing: only('writing'),
      speaking: only('speaking', 'sounding'),
      sounding: only('speaking', 'sounding'),
    })
    expect(away()).toEqual([])
    expect(await settledTensors()).toBe(before)
  })

  it('streams pieces that go on from those before, as on the CPU', async () => {
    // It writes sixty units, of which the vocoder holds back what later ones change.
    const talkative = { ...parts, llm: scriptedLlm(tokenizer, { ...SCRIPT, '<|unit12|>': '<|unit5|>' }, {}) }
    const pieces = async (model: Usdm) => {
      const found: Float32Array[] = []
      const asked = { ...options, maxUnits: 60, firstUnits: 20, chunkUnits: 15 }
      for await (const event of model.stream(chirp(0.4), asked)) {
        if (event.type === 'speech' && event.samples) found.push(event.samples)
      }
      return found
    }
    const wanted = await pieces(new Usdm(talkative))
    const found = await pieces(new Usdm({ ...talkative, offload: 'cuda' }))
    expect(wanted.length).toBeGreaterThan(1)
    expect(found.map(({ length }) => length)).toEqual(wanted.map(({ length }) => length))
    for (const [i, piece] of wanted.entries()) expect(relativeError(found[i] as Float32Array, piece)).toBeLessThan(1e-4)
  })

  it('streams while two of them are there, and leaves it when it is left', async () => {
    const kinds: UsdmEvent['type'][] = []
    for await (const event of usdm.stream(chirp(0.4), { ...options, firstUnits: 5, chunkUnits: 10 })) {
      kinds.push(event.type)
      if (event.type === 'speech') {
        expect(away()).toEqual(['writing', 'speaking', 'sounding'])
        break
      }
    }
    expect(kinds.at(-1)).toBe('speech')
    expect(away()).toEqual([])
    const gone = usdm.respond(chirp(0.4), { ...options, signal: AbortSignal.abort() })
    await expect(gone).rejects.toThrow(/abort/)
    expect(away()).toEqual([])
  })
})
