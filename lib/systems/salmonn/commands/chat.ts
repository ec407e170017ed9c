import { createInterface } from 'node:readline/promises'
import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import type { Device, DType } from '../../../tensor/index.js'
import type { ChatLine } from '../answer/chat-line.js'
import type { SalmonnChatMessage, SalmonnChatPart } from '../answer/chat-prompt.js'
import {
  configurationOfArguments,
  printIgnored,
  SALMONN_OPTIONS,
  salmonnArguments,
} from '../configuration/arguments.js'

const { config, options, model, device, dtype } = SALMONN_OPTIONS

export const chat = commandRule({
  name: 'chat',
  summary: 'Chat with SALMONN in the terminal, with the published parts or a saved model.',
  details: `  voxtorch salmonn chat --model runs/salmonn/model
  voxtorch salmonn chat --cfg-path configs/decode_config.yaml

Each line is a message. Names of audio files in it become clips: 'talk.wav What does she say?', then 'And in what mood?'. A line may
name several files, with or without commas. Put paths with spaces in double quotes. '@FILE' reads a path from each line of FILE.
'/new' starts a new conversation, '/quit' ends the chat, Ctrl-C stops an answer. With input from a file or a pipe, the exit code is 1
if a line could not be answered.`,
  options: {
    ...{ config, options, model, device, dtype },
    json: { type: 'boolean', help: 'print each answer as a line of JSON' },
    maxNewTokens: { type: 'integer', help: 'maximum number of tokens of an answer', default: 200 },
  },
  async run({ json = false, maxNewTokens: most, ...rest }) {
    const values = salmonnArguments(rest)
    const configuration = values.config === undefined ? undefined : await configurationOfArguments(values)
    if (configuration === undefined && values.model === undefined) {
      throw new ConfigError('--model: expected a model, got none. Pass --model DIR or --config FILE.', {
        argument: 'model',
      })
    }
    const { Salmonn } = await import('../network/network.js')
    const { SalmonnChat } = await import('../answer/chat.js')
    const { salmonnOfConfiguration } = await import('../configuration/apply.js')
    const { parseChatLine } = await import('../answer/chat-line.js')
    const dtype = (values.dtype ?? 'bfloat16') as DType
    const place = values.device === undefined ? {} : { device: values.device as Device }
    using model = configuration
      ? await salmonnOfConfiguration(configuration, { dtype, model: values.model })
      : await Salmonn.fromPretrained(values.model as string, { dtype, ...place })
    if (configuration) printIgnored(configuration)
    using chat = new SalmonnChat(model)
    const {
      maxNewTokens = 200,
      numBeams = 1,
      ...sampling
    } = {
      ...configuration?.generation,
      ...defined({ maxNewTokens: most }),
    }
    const { doSample = false, temperature = 1, topP, topK } = sampling
    const drawn = doSample ? { temperature, ...(topP && { topP }), ...(topK && { topK }) } : {}
    const terminal = createInterface({ input: process.stdin, output: json ? undefined : process.stdout, prompt: '> ' })
    let stop = new AbortController()
    let code = 0
    terminal.on('SIGINT', () => stop.abort())
    const messages: SalmonnChatMessage[] = []

    /** Answer a message, and add both to the conversation. A message without an answer is not added. */
    async function answer(line: string): Promise<void> {
      stop = new AbortController()
      let text = ''
      try {
        const input = await parseChatLine(line)
        const turns = [...messages, await messageOf(input)]
        try {
          for await (const step of chat.stream(turns, { maxNewTokens, numBeams, ...drawn, signal: stop.signal })) {
            text += step.text
            if (!json) process.stdout.write(step.text)
          }
        } finally {
          const reply = text.replaceAll('<SpeechHere>', '')
          if (text !== '') {
            messages.push(...turns.slice(-1), { role: 'assistant', content: [{ type: 'text', text: reply }] })
          }
        }
        if (json) console.log(JSON.stringify({ audio: input.audio, prompt: input.text, answer: text }))
      } catch (error) {
        if (stop.signal.aborted) return
        if (json) console.log(JSON.stringify({ prompt: line, error: (error as Error).message }))
        else process.stdout.write((error as Error).message)
        if (!process.stdin.isTTY) code = 1
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
    return code
  },
})

async function messageOf({ audio, text }: ChatLine): Promise<SalmonnChatMessage> {
  const { readClip } = await import('../../../audio/clip.js')
  const content: SalmonnChatPart[] = []
  for (const path of audio) content.push({ type: 'audio', samples: await readClip(path) })
  if (text !== '') content.push({ type: 'text', text })
  return { role: 'user', content }
}
