/**
 * Talks with SALMONN in the terminal, with the published parts or a saved directory:
 *
 * `npx tsx examples/salmonn-chat.ts --model runs/salmonn/model`
 * `npx tsx examples/salmonn-chat.ts --cfg-path configs/decode_config.yaml`
 *
 * A line is what you say; words that name sound files become clips: `talk.wav What does she say?`, then `And in what mood?`.
 * `/new` begins anew, `/quit` ends. Ctrl-C ends an answer.
 */
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline/promises'
import * as vt from 'voxtorch'

const given = vt.parseSalmonnArguments(process.argv.slice(2))
const configuration = given.config === undefined ? undefined : await vt.configurationOfArguments(given)
const dtype = (process.env.SALMONN_DTYPE ?? 'bfloat16') as vt.DType
const device = given.device === undefined ? {} : { device: given.device as vt.Device }
if (!configuration && given.model === undefined) throw new Error('say which model: --model DIRECTORY or --config FILE')
using model = configuration
  ? await vt.salmonnOfConfiguration(configuration, { dtype, model: given.model })
  : await vt.Salmonn.fromPretrained(given.model as string, { dtype, ...device })
using chat = new vt.SalmonnChat(model)

async function message(line: string): Promise<vt.SalmonnChatMessage> {
  const content: vt.SalmonnChatPart[] = []
  const words: string[] = []
  for (const word of line.split(/\s+/)) {
    if (!/\.\w+$/.test(word) || !existsSync(word)) words.push(word)
    else {
      const { samples } = await vt.readAudio(word, { sampleRate: 16000 })
      content.push({ type: 'audio', samples: Float32Array.from(samples.toArray() as number[]) })
      samples.dispose()
    }
  }
  if (words.length > 0) content.push({ type: 'text', text: words.join(' ') })
  return { role: 'user', content }
}

const terminal = createInterface({ input: process.stdin, output: process.stdout, prompt: '> ' })
let stop = new AbortController()
terminal.on('SIGINT', () => stop.abort())
const messages: vt.SalmonnChatMessage[] = []
terminal.prompt()
for await (const line of terminal) {
  if (line.trim() === '/quit') break
  if (line.trim() === '/new') messages.length = 0
  else if (line.trim() !== '') {
    stop = new AbortController()
    let text = ''
    try {
      messages.push(await message(line.trim()))
      for await (const step of chat.stream(messages, { maxNewTokens: 200, signal: stop.signal })) {
        text += step.text
        process.stdout.write(step.text)
      }
    } catch (error) {
      if (!stop.signal.aborted) console.log((error as Error).message)
    }
    // What was not answered was not said.
    if (text === '') messages.pop()
    else messages.push({ role: 'assistant', content: [{ type: 'text', text: text.replaceAll('<SpeechHere>', '') }] })
    process.stdout.write('\n')
  }
  terminal.prompt()
}
terminal.close()
