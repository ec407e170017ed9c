// node --import tsx bench/sentences.ts --text FILE [--count 1000] [--forms bfloat16,int8,dynamic]
//
// What each form of an encoder's weights costs in accuracy: the vectors of MiniLM (`voxtorch weights minilm`) for the lines of
// a text, against those in float32: the cosine of the two, how often the sentence most like one is the same, how many of the
// ten most like it, and Spearman's correlation of all similarities. int8: quantize, which rounds 16
// inputs at a time to 8 bits; dynamic: quantizeDynamic, which rounds a row.
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { Bert, embedSentences, noGrad, quantize, quantizeDynamic, spearman, Tokenizer } from '../lib/index.js'

const { values } = parseArgs({
  options: {
    text: { type: 'string' },
    count: { type: 'string', default: '1000' },
    forms: { type: 'string', default: 'bfloat16,int8,dynamic' },
  },
})
if (values.text === undefined) throw new Error('--text names a file with a sentence in each line')
const lines = readFileSync(values.text, 'utf8').split('\n').filter(Boolean).slice(0, Number(values.count))
const tokenizer = await Tokenizer.fromPretrained('minilm')

/** Unit vectors. */
async function vectorsOf(form: string): Promise<Float32Array[]> {
  const model = (await Bert.fromPretrained('minilm', { dtype: form === 'bfloat16' ? form : 'float32' })).eval()
  model.freeze()
  if (form === 'int8') quantize(model, { scheme: 'int8' })
  if (form === 'dynamic') quantizeDynamic(model)
  const made = await noGrad(() => embedSentences(model, tokenizer, lines, { normalize: true }))
  const [rows, dim] = made.shape as [number, number]
  const all = Float32Array.from((await made.float().data()) as Float32Array)
  model.dispose()
  return Array.from({ length: rows }, (_, i) => all.subarray(i * dim, (i + 1) * dim))
}

const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * (b[i] as number), 0)
const similarities = (vectors: Float32Array[]) => vectors.map((a) => vectors.map((b) => dot(a, b)))
const nearest = (row: number[], self: number, count: number) =>
  row
    .map((value, i) => [value, i] as const)
    .filter(([, i]) => i !== self)
    .sort((a, b) => b[0] - a[0])
    .slice(0, count)
    .map(([, i]) => i)

const base = await vectorsOf('float32')
const wanted = similarities(base)
for (const form of values.forms.split(',')) {
  const vectors = await vectorsOf(form)
  const cosines = vectors.map((vector, i) => dot(vector, base[i] as Float32Array)).sort((a, b) => a - b)
  const found = similarities(vectors)
  let [same, shared] = [0, 0]
  for (const [i, row] of found.entries()) {
    const [mine, theirs] = [nearest(row, i, 10), nearest(wanted[i] as number[], i, 10)]
    if (mine[0] === theirs[0]) same += 1
    shared += mine.filter((one) => theirs.includes(one)).length
  }
  const pairs = (all: number[][]) => all.flatMap((row, i) => row.slice(i + 1))
  const rank = spearman(pairs(found), pairs(wanted))
  console.log(
    `${form}: cosine ${(cosines[cosines.length >> 1] as number).toFixed(5)}, least ${(cosines[0] as number).toFixed(5)}; ` +
      `nearest the same for ${same} of ${lines.length}, ${(shared / lines.length).toFixed(2)} of the ten nearest; rank ${rank.toFixed(5)}`,
  )
}
