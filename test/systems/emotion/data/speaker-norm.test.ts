import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ConfigError, DataError } from '../../../../lib/index.js'
import type { EmotionDialog } from '../../../../lib/kit/emotion/dialog.js'
import { FeatureCache } from '../../../../lib/systems/emotion/data/features.js'
import { speakerNormalized } from '../../../../lib/systems/emotion/data/speaker-norm.js'
import { TinyEncoder } from '../tiny.js'

// Ann is loud and Ben is not; the third feature never changes, and the last utterance has nothing to hear.
const said: Record<string, [string, number[] | undefined][]> = {
  one: [
    ['Ann', [10, 100, 7]],
    ['Ben', [1, 2, 7]],
    ['Ann', [14, 100, 7]],
  ],
  two: [
    ['Ben', [3, 6, 7]],
    ['Ann', [12, 400, 7]],
    ['Ben', undefined],
  ],
}
const dialogs: EmotionDialog[] = Object.entries(said).map(([id, rows]) => ({
  ...{ id, source: id },
  utterances: rows.map(([speaker], i) => ({ id: i + 1, text: '', speaker })),
}))
const facts = ({ id }: EmotionDialog, place: number) => said[id]?.[place]?.[1]
const encoder = () => new TinyEncoder('audio', 3, facts)
const folder = () => mkdtempSync(join(tmpdir(), 'voxtorch-speaker-norm-'))

async function using<T>(where: string, work: (cache: FeatureCache) => Promise<T>): Promise<T> {
  const cache = FeatureCache.open(where)
  try {
    return await work(cache)
  } finally {
    await cache.close()
  }
}

describe('speakerNormalized', () => {
  it('says how far a speaker is from how they usually are', async () => {
    const found = await using(folder(), async (cache) =>
      cache.vectors(await speakerNormalized(encoder(), dialogs, { cache }), dialogs),
    )
    // Ann: 10, 14, 12 and 100, 100, 400; Ben: 1, 3 and 2, 6. Of three numbers a, a, b the scores are -1/√2, -1/√2, √2.
    const [low, high] = [-Math.sqrt(0.5), Math.sqrt(2)]
    const wanted = [
      [
        [-Math.sqrt(1.5), low, 0],
        [-1, -1, 0],
        [Math.sqrt(1.5), low, 0],
      ],
      [[1, 1, 0], [0, high, 0], undefined],
    ]
    for (const [d, rows] of wanted.entries()) {
      for (const [u, row] of rows.entries()) {
        const vector = found[d]?.[u]
        expect(vector === undefined, `${d} ${u}`).toBe(row === undefined)
        for (const [k, value] of (row ?? []).entries()) expect(vector?.[k], `${d} ${u} ${k}`).toBeCloseTo(value, 6)
      }
    }
  })

  it('has another key where a speaker says anything else', async () => {
    await using(folder(), async (cache) => {
      const key = async (some: EmotionDialog[]) =>
        FeatureCache.keyOf(await speakerNormalized(encoder(), some, { cache }))
      expect(await key(dialogs)).toBe(await key([...dialogs].reverse()))
      const shorter = [{ ...dialogs[0]!, utterances: dialogs[0]!.utterances.slice(0, 2) }, dialogs[1]!]
      expect(await key(dialogs)).not.toBe(await key(shorter))
    })
  })

  it('refuses who cannot be compared with themselves', async () => {
    await using(folder(), async (cache) => {
      const alone = [{ ...dialogs[1]!, utterances: dialogs[1]!.utterances.slice(0, 2) }]
      await expect(speakerNormalized(encoder(), alone, { cache })).rejects.toThrow(
        /expected at least 2 utterances of speaker "Ben", got 1/,
      )
      const nobody = [{ ...dialogs[0]!, utterances: [{ id: 1, text: '', speaker: '' }] }]
      await expect(speakerNormalized(encoder(), nobody, { cache })).rejects.toThrow(
        /one, utterance 1: speaker: expected a name/,
      )
      const made = await speakerNormalized(encoder(), dialogs, { cache })
      const other = { ...dialogs[0]!, utterances: [{ id: 9, text: '', speaker: 'Eve' }] }
      await expect(made.read(other, 0)).rejects.toThrow(DataError)
      await expect(speakerNormalized(encoder(), dialogs, {} as never)).rejects.toThrow(ConfigError)
      await expect(speakerNormalized(encoder(), dialogs, { cache, by: 'text' } as never)).rejects.toThrow(
        /expected a known option, got 'by'/,
      )
    })
  })
})
