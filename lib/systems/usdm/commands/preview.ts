import { writeAtomicallySync } from '../../../base/atomic.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { USDM_OPTIONS } from '../configuration/arguments.js'

const { model, modelCacheDir, units } = USDM_OPTIONS

export const preview = commandRule({
  name: 'preview',
  summary: 'Shows an example that USDM is fine-tuned on, with what is learnt of it in colour.',
  details: `  voxtorch usdm preview preprocessed/train.txt --model CACHE --example 3
  voxtorch usdm preview preprocessed/train.txt --model CACHE --html example.html --clips user.wav,agent.wav

The tokenizer is the one that the examples were made with. Units that repeat are written once, with how often.`,
  files: 'EXAMPLES.txt',
  options: {
    ...{ model, modelCacheDir, units },
    example: { kind: 'whole', help: 'which one, from 1', preset: 1 },
    html: { kind: 'text', help: 'writes a page instead', value: 'file' },
    clips: { kind: 'list', help: 'sound files to listen to on the page' },
  },
  async run({ example = 1, html, clips, ...given }, [file, more]) {
    if (file === undefined || more !== undefined || example < 1) {
      throw new ConfigError('Say which file of examples, and which example from 1: voxtorch usdm preview FILE', {})
    }
    if (clips !== undefined && html === undefined) throw new ConfigError('--clips is for --html', { argument: 'clips' })
    const { readUsdmExamples } = await import('../data/examples.js')
    const { usdmTokenizerOfArguments } = await import('../configuration/apply.js')
    const { previewPage, previewText } = await import('../answer/preview.js')
    let place = 0
    for await (const found of readUsdmExamples(file)) {
      place += 1
      if (place < example) continue
      const tokenizer = await usdmTokenizerOfArguments(given, given.units)
      const title = `${file}, example ${example}`
      if (html === undefined) console.log(previewText(tokenizer, found, process.stdout.isTTY === true))
      else writeAtomicallySync(html, DataError, await previewPage(tokenizer, found, { title, clips: clips ?? [] }))
      return 0
    }
    throw new ConfigError(`${file} has ${place} examples, and no number ${example}`, { argument: 'example' })
  },
})
