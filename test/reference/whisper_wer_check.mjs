// The words that Whisper gets wrong, in each form of its weights; after `npm run build` and `npx voxtorch weights whisper-base`:
//
//     node test/reference/whisper_wer_check.mjs [--data ../shared/data] [--sounds FOLDER] [--write FILE.json] NAME FORM ...
//
// FORM: float32, bfloat16, int8 (all of it), int8-decoder, nf4. On 100 clips of LibriSpeech test-other against what transformers
// writes in float32 (test/fixtures/models/whisper-published.json), as there are no transcripts here; and on Asterisk's English
// prompts (Debian's asterisk-core-sounds-en-wav, unpacked into FOLDER) against their transcripts, as `transcribe` does by default.
// Lower case, without punctuation. --write keeps clip, transcript and what was written of the prompts, for
// whisper_wer_ctranslate2.py, which asks faster-whisper the same and counts both alike.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Generator, quantize, Whisper, wer } from 'voxtorch'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    data: { type: 'string', default: '../shared/data' },
    sounds: { type: 'string' },
    write: { type: 'string' },
  },
})
const [name, ...forms] = positionals
const folder = new URL('../fixtures/models/', import.meta.url)

function clips() {
  const texts = JSON.parse(readFileSync(new URL('whisper-published.json', folder), 'utf8'))[name] ?? {}
  return Object.entries(texts).map(([clip, text]) => [
    join(values.data, 'librispeech-other', clip.split('-')[0], clip),
    text,
  ])
}

function prompts() {
  if (values.sounds === undefined) return []
  const lines = readFileSync(join(values.data, 'asterisk/core-sounds-en.txt'), 'utf8').split('\n')
  return lines.flatMap((line) => {
    const [, file, text] = /^([^;:]+): (.+)$/.exec(line) ?? []
    // Sounds that are no words stand in brackets.
    if (text === undefined || /[[\]<>()]/.test(text) || wordsOf(text).length === 0) return []
    const path = join(values.sounds, `${file}.wav`)
    return existsSync(path) ? [[path, text]] : []
  })
}

const wordsOf = (text) =>
  text
    .toLowerCase()
    .replace(/[^\p{L}\p{N}' ]+/gu, ' ')
    .split(/\s+/)
    .filter(Boolean)

const kept = {}
for (const form of forms) {
  const whisper = await Whisper.fromPretrained(name, { dtype: form === 'bfloat16' ? 'bfloat16' : 'float32' })
  whisper.freeze()
  const [, scheme, part] = /^(int8|nf4)(-decoder)?$/.exec(form) ?? []
  if (scheme) quantize(whisper, { scheme, ...(part && { modules: 'model.decoder' }) })
  const language = name.endsWith('.en') ? null : 'en'
  for (const [what, set] of Object.entries({ librispeech: clips(), asterisk: prompts() })) {
    const [said, written] = [[], []]
    let same = 0
    for (const [path, text] of set) {
      // The texts of transformers are greedy ones; a prompt may end in a loop, which is drawn again at other temperatures.
      const greedy = { timestamps: false, temperature: 0, noSpeechThreshold: null }
      const found = await whisper.transcribe(path, {
        language,
        ...(what === 'librispeech' ? greedy : { generator: new Generator(0) }),
      })
      if (what === 'asterisk') (kept[form] ??= []).push({ path, text, written: found.text })
      said.push(wordsOf(text).join(' '))
      written.push(wordsOf(found.text).join(' '))
      if (found.text === text) same += 1
    }
    if (set.length === 0) continue
    const rate = (100 * wer(said, written)).toFixed(2)
    console.log(`${name} ${form} ${what}: ${rate} % of the words of ${set.length} clips; ${same} to the letter`)
  }
  whisper.dispose()
}
if (values.write !== undefined) writeFileSync(values.write, JSON.stringify(kept, null, 1))
