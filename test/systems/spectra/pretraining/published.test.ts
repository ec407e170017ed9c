import { cpSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import * as files from '../../../../lib/files/index.js'
import * as vt from '../../../../lib/index.js'
import * as spectra from '../../../../lib/systems/spectra/index.js'
import { fixturePath, settledTensors } from '../../../helpers.js'
import { frames7, sine, temporary } from './helpers.js'

const folder = temporary()

describe('readPublishedSpectraPretraining', () => {
  it.each([2, 4, 5])('reads the pickle of protocol %i, and says what cannot be used', async (protocol) => {
    const path = fixturePath(`spectra/pretraining-${protocol}.pkl`)
    const { entries, skipped } = await spectra.readPublishedSpectraPretraining(path)
    expect(entries).toEqual([
      {
        audio: 'show/a0.npy',
        inputIds: [0, 405, 18, 627, 2],
        words: [
          ["it's", 1, 3, 0, 8000],
          ['the', 3, 4, 6400, 9600],
        ],
        previous: -1,
      },
      { audio: 'show/a1.npy', inputIds: [0, 627, 405, 18, 2], words: [['the', 1, 2, 0, 1600]], previous: 0 },
      { audio: 'show/b0.npy', inputIds: [0, 627, 2], words: [['the', 1, 2, 0, 1600]], previous: -1 },
      { audio: 'show/b1.npy', inputIds: [0, 2], words: [], previous: -1 },
    ])
    expect(skipped).toEqual({ wordTokens: 1, wordTimes: 1, badLink: 1, noWords: 1 })
    await expect(spectra.readPublishedSpectraPretraining(path, { onProblem: 'error' })).rejects.toThrow(
      /entry 1: word "": expected its own tokens, got tokens 2 to 2/,
    )
  })

  it('takes a folder for all of its files, with links inside of each, and trains on the .npy files', async () => {
    const root = join(folder, 'published')
    mkdirSync(join(root, 'leaf'), { recursive: true })
    for (const name of ['leaf/a.pkl', 'leaf/b.pkl']) cpSync(fixturePath('spectra/pretraining-4.pkl'), join(root, name))
    const audio = join(folder, 'npy')
    mkdirSync(join(audio, 'show'), { recursive: true })
    for (const [i, name] of ['a0', 'a1', 'b0', 'b1'].entries()) {
      await vt.scope(() => files.saveNpy(join(audio, 'show', `${name}.npy`), vt.tensor(sine(0.5, 100 * (i + 1)))))
    }
    const output = join(folder, 'imported')
    expect(await spectra.importPublishedSpectraPretraining(root, output, audio)).toMatchObject({ entries: 8 })
    const source = await spectra.openSpectraPretraining(output)
    expect([...source.previous]).toEqual([-1, 0, -1, -1, -1, 4, -1, -1])
    const before = await settledTensors()
    const dataset = new spectra.SpectraPretrainingDataset(source, { frames: frames7, mlm: { probability: 0 } })
    expect(dataset.length).toBe(2)
    const { current, clips, previousWords } = await dataset.get(1)
    expect(current.inputIds).toEqual([0, 627, 405, 18, 2])
    expect(clips[1].samples).toEqual(sine(0.5, 200))
    // "the" of the previous turn goes on past the half second of its audio: its end is cut, as is that of "it's".
    expect(previousWords).toEqual([
      ["it's", 1, 3, 0, 8000],
      ['the', 3, 4, 6400, 8000],
    ])
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('refuses other pickles and audio', async () => {
    const path = join(folder, 'short.npy')
    await vt.scope(() => files.saveNpy(path, vt.zeros([2, 3])))
    await expect(spectra.readPublishedSpectraPretraining(path)).rejects.toThrow(vt.DataError)
    await expect(spectra.readPublishedSpectraPretraining(join(folder, 'none.pkl'))).rejects.toThrow(
      /expected a readable file or folder/,
    )
  })
})
