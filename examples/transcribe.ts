/**
 * Transcribe recordings with segment times. `npx tsx examples/transcribe.ts MODEL talk.mp3 …`: MODEL is a
 * folder, published weights such as `whisper-base`, or a repository of the hub, such as a wav2vec 2.0 with CTC.
 */
import { pipeline, Whisper } from 'voxtorch'

const [model, ...files] = process.argv.slice(2)
if (model === undefined || files.length === 0) {
  console.error('usage: npx tsx examples/transcribe.ts MODEL FILE …, such as whisper-base talk.mp3')
  process.exit(1)
}
using transcriber = await pipeline('automatic-speech-recognition', model, { progress: true })
const returnTimestamps = transcriber.model instanceof Whisper ? true : 'word'
for (const file of files) {
  const { text, chunks = [] } = await transcriber(file, { returnTimestamps })
  console.log(`${file}: ${text}`)
  for (const { timestamp, text } of chunks) {
    const [start, end] = timestamp.map((seconds) => seconds.toFixed(2))
    console.log(`${start} - ${end}  ${text.trim()}`)
  }
}
