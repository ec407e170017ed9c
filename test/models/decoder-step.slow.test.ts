import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterEach, describe, expect, it } from 'vitest'
import { getNumThreads, setNumThreads } from '../../lib/index.js'

// A token behind others, in one native step, against one pass over the whole text in float64.

const CONFIG = {
  vocabSize: 61,
  hiddenSize: 80,
  intermediateSize: 144,
  numHiddenLayers: 2,
  numAttentionHeads: 6,
  numKeyValueHeads: 2,
  headDim: 8,
  maxPositionEmbeddings: 512,
}

describe('workers', () => {
  const threads = getNumThreads()
  afterEach(() => setNumThreads(threads))

  it('do not keep a process from ending, in a text too', async () => {
    const index = new URL('../../dist/modules/index.js', import.meta.url)
    const program = `
      import { DecoderLM, randint, setNumThreads } from '${index}'
      const model = new DecoderLM(${JSON.stringify(CONFIG)}).eval()
      const text = { inputIds: randint(0, 61, [1, 9]) }
      for (const threads of [4, 2, 3]) {
        setNumThreads(threads)
        await model.generate(text, { maxNewTokens: 9, eosTokenId: null })
      }
      let count = 0
      for await (const _ of model.stream(text, { maxNewTokens: 400, eosTokenId: null })) {
        if (++count === 20) setImmediate(() => process.exit(process.argv[1] === 'now' ? 3 : 4))
      }`
    for (const [when, code] of [
      ['now', 3],
      ['later', 4],
    ] as const) {
      const cwd = fileURLToPath(new URL('../../', import.meta.url))
      const run = promisify(execFile)(process.execPath, ['--input-type=module', '-e', program, when], { cwd })
      await expect(run).rejects.toMatchObject({ code, signal: null })
    }
  })
})
