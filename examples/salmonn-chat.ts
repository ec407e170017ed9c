/**
 * Talks with SALMONN in the terminal, with the published parts or a saved directory:
 *
 * `npx tsx examples/salmonn-chat.ts --model runs/salmonn/model`
 * `npx tsx examples/salmonn-chat.ts --cfg-path configs/decode_config.yaml`
 *
 * A line is what you say; words that name sound files become clips: `talk.wav What does she say?`, then `And in what mood?`.
 * Several may stand in a line, with commas or not, in double quotes where there are blanks in the path; `@FILE` has a path on
 * each line. `/new` begins anew, `/quit` ends. Ctrl-C ends an answer. With `--json` each answer is a line of JSON. Where
 * lines come from a file or a pipe, the exit code is 1 if one could not be answered.
 */
import { createInterface } from 'node:readline/promises'
import * as vt from 'voxtorch'

const argv = process.argv.slice(2)
const json = argv.includes('--json')
const given = vt.parseSalmonnArguments(argv.filter((word) => word !== '--json'))
const configuration = given.config === undefined ? undefined : await vt.configurationOfArguments(given)
const dtype = (process.env.SALMONN_DTYPE ?? 'bfloat16') as vt.DType
const device = given.device === undefined ? {} : { device: given.device as vt.Device }
if (!configuration && given.model === undefined) throw new Error('say which model: --model DIRECTORY or --config FILE')
using model = configuration
  ? await vt.salmonnOfConfiguration(configuration, { dtype, model: given.model })
  : await vt.Salmonn.fromPretrained(given.model as string, { dtype, ...device })
using chat = new vt.SalmonnChat(model)
const { maxNewTokens = 200, numBeams = 1, doSample = false, temperature, topP, topK } = configuration?.generation ?? {}
const sampling = doSample ? { temperature: temperature ?? 1, ...(topP && { topP }), ...(topK && { topK }) } : {}

async function message({ audio, text }: vt.ChatLine): Promise<vt.SalmonnChatMessage> {
  const content: vt.SalmonnChatPart[] = []
  for (const path of audio) {
    const { samples } = await vt.readAudio(path, { sampleRate: vt.SALMONN_RATE })
    content.push({ type: 'audio', samples: (await samples.data()) as Float32Array })
    samples.dispose()
  }
  if (text !== '') content.push({ type: 'text', text })
  return { role: 'user', content }
}

const terminal = createInterface({ input: process.stdin, output: json ? undefined : process.stdout, prompt: '> ' })
let stop = new AbortController()
terminal.on('SIGINT', () => stop.abort())
const messages: vt.SalmonnChatMessage[] = []

/** The conversation with one more turn; what was not answered was not said. */
async function answer(line: string): Promise<void> {
  stop = new AbortController()
  let text = ''
  try {
    const said = await vt.parseChatLine(line)
    const asked = [...messages, await message(said)]
    try {
      for await (const step of chat.stream(asked, { maxNewTokens, numBeams, ...sampling, signal: stop.signal })) {
        text += step.text
        if (!json) process.stdout.write(step.text)
      }
    } finally {
      const reply = text.replaceAll('<SpeechHere>', '')
      if (text !== '')
        messages.push(...asked.slice(-1), { role: 'assistant', content: [{ type: 'text', text: reply }] })
    }
    if (json) console.log(JSON.stringify({ audio: said.audio, prompt: said.text, answer: text }))
  } catch (error) {
    if (stop.signal.aborted) return
    if (json) console.log(JSON.stringify({ prompt: line, error: (error as Error).message }))
    else process.stdout.write((error as Error).message)
    if (!process.stdin.isTTY) process.exitCode = 1
  }
}

if (!json) terminal.prompt()
for await (const line of terminal) {
  const word = line.trim()
  if (word === '/quit') break
  if (word === '/new') messages.length = 0
  else if (word !== '') {
    await answer(word)
    if (!json) process.stdout.write('\n')
  }
  if (!json) terminal.prompt()
}
terminal.close()
