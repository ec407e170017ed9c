/**
 * A conversation with a language model, whose answers come word by word; ^C ends an answer, an empty line or ^D the conversation.
 * `npx tsx examples/chat.ts MODEL`: a folder, published weights or a repository of the hub with a chat template, such as
 * `smollm2-135m-instruct` or `Qwen/Qwen2-0.5B-Instruct` (`npm install @huggingface/hub`).
 */
import { createInterface } from 'node:readline/promises'
import { type ChatMessage, DecoderLM, resolveModel, streamText, Tokenizer, tensor } from 'voxtorch'

const folder = await resolveModel(process.argv[2] ?? 'smollm2-135m-instruct', { progress: true })
using model = await DecoderLM.fromPretrained(folder, { dtype: 'bfloat16' })
const tokenizer = await Tokenizer.fromPretrained(folder)
const terminal = createInterface({ input: process.stdin, output: process.stdout })
const messages: ChatMessage[] = []
let stop = () => terminal.close()
terminal.on('SIGINT', () => stop())
terminal.setPrompt('> ')
terminal.prompt()
// The loop ends with the input: at ^D, or at the end of a file.
for await (const question of terminal) {
  if (question === '') break
  messages.push({ role: 'user', content: question })
  const running = new AbortController()
  stop = () => running.abort()
  using inputIds = tensor([tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true })])
  const steps = model.stream({ inputIds }, { maxNewTokens: 512 }, { signal: running.signal })
  let answer = ''
  try {
    for await (const text of streamText(tokenizer, steps)) {
      process.stdout.write(text)
      answer += text
    }
  } catch (error) {
    if (!running.signal.aborted) throw error
  }
  messages.push({ role: 'assistant', content: answer })
  process.stdout.write('\n')
  stop = () => terminal.close()
  terminal.prompt()
}
terminal.close()
