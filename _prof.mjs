import { noGrad, Roberta, WavLM, randint, randn, scope, profile } from 'voxtorch'
const config = { vocabSize: 50265, maxPositionEmbeddings: 514, typeVocabSize: 1, layerNormEps: 1e-5 }
const which = process.argv[2], dtype = process.argv[3] ?? 'float32'
const m = which === 'roberta' ? new Roberta(config, {dtype}) : new WavLM({}, {dtype}); m.eval()
const x = which === 'roberta' ? { inputIds: randint(5, 50265, [8, 128]) } : { inputValues: randn([1,160000]).to(dtype) }
const f = () => noGrad(() => scope(async () => void (await m.forward(x))))
await f(); await f()
const { rows } = await profile(async () => { for (let i=0;i<3;i++) await f() })
let tot=0; for (const r of rows) tot+=r.selfMicroseconds
console.log('total', (tot/3e3).toFixed(0))
for (const r of rows.slice(0,16)) console.log(r.name.padEnd(44), String(r.calls/3).padStart(6), (r.selfMicroseconds/3e3).toFixed(1))
