/**
 * Ask SALMONN about audio from a program. The commands are `voxtorch salmonn chat` and `voxtorch serve salmonn`.
 *
 * `npx tsx examples/salmonn-ask.ts MODEL "What does she say?" 1.wav 2.wav`: MODEL is a folder that `voxtorch salmonn train` saved.
 */
import * as vt from 'voxtorch'
import * as salmonn from 'voxtorch/salmonn'

const [directory = 'runs/salmonn/model', question = 'What do you hear?', ...files] = process.argv.slice(2)
using model = await vt.Salmonn.fromPretrained(directory, { dtype: 'float32' })
using chat = new salmonn.SalmonnChat(model)
const content: salmonn.SalmonnChatPart[] = []
for (const file of files) content.push({ type: 'audio', samples: await vt.readClip(file) })
content.push({ type: 'text', text: question })
for await (const { text } of chat.stream([{ role: 'user', content }], { maxNewTokens: 100 })) process.stdout.write(text)
process.stdout.write('\n')
