/**
 * Builds the documentation site into docs/.vitepress/dist: `npm run docs`. It needs no network; a warning is an error, and
 * so is a link to nowhere. `-- --no-api` takes the reference that the last build made.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cliPage } from './cli-page.js'
import { checkLinks } from './links.js'
import { namesPage } from './names-page.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const docs = join(root, 'docs')
const site = join(docs, '.vitepress/dist')

function run(program: string, ...values: string[]): void {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'node_modules', program), ...values], {
    cwd: docs,
    encoding: 'utf8',
  })
  const said = `${stdout ?? ''}${stderr ?? ''}`
  const warnings = said.split('\n').filter((line) => /\bwarn(ing)?\b/i.test(line))
  if (status === 0 && warnings.length === 0) return
  process.stderr.write(said)
  throw new Error(`${program} ${status === 0 ? `warns: ${warnings.join('; ')}` : `ends with ${status}`}`)
}

function step<T>(name: string, does: () => T): T {
  const started = performance.now()
  const result = does()
  console.log(`${name} (${((performance.now() - started) / 1000).toFixed(0)} s)`)
  return result
}

/** The page of the type `Index` would be taken for the index of its folder. */
function renameIndex(api: string): void {
  for (const path of readdirSync(api, { recursive: true, encoding: 'utf8' })) {
    const file = join(api, path)
    if (!/\.(md|json)$/.test(path)) continue
    const text = readFileSync(file, 'utf8')
    const renamed = text.replaceAll('/Index.md', '/TensorIndex.md').replaceAll('](Index.md', '](TensorIndex.md')
    if (renamed !== text) writeFileSync(file, renamed)
    if (path.endsWith('/Index.md')) renameSync(file, file.replace(/Index\.md$/, 'TensorIndex.md'))
  }
}

const REFERENCE = `# Reference

| Import from | What |
| --- | --- |
| \`voxtorch\` | [tensors](./tensor/index.md), [layers](./nn/index.md), [networks](./models/index.md), [generation](./generation/index.md), [pipelines](./pipeline/index.md), [training](./train/index.md), [LoRA](./peft/index.md), [data](./data/index.md), [audio](./audio/index.md), [text](./text/index.md), [the hub](./hub/index.md), [several processes](./distributed/index.md), [errors](./base/errors/index.md) |
| \`voxtorch/files\` | [readers and writers](./files/index.md); the common ones are in \`voxtorch\` too |
| \`voxtorch/tuning\` | [fine-tuning on conversations, preferences and rewards](./tuning/index.md): SFT, DPO, IPO, KTO, ORPO, SimPO, GRPO; LoRA+ |
| \`voxtorch/serve\` | [the server](./serve/index.md) |
| \`voxtorch/spectra\` | [SPECTRA](./systems/spectra/index.md); its encoder is in \`voxtorch\` too |
| \`voxtorch/salmonn\` | [SALMONN](./systems/salmonn/index.md); its network is in \`voxtorch\` too |
| \`voxtorch/emotion\` | [LanguageBind emotion](./systems/emotion/index.md): dialogs, the classifier, causes, ECF's scorer |
| \`voxtorch/usdm\` | [USDM](./systems/usdm/index.md): its tokenizer, prompts and data |
| \`voxtorch/emoverse\` | [EmoVerse](./systems/emoverse/index.md): its data, stages, answers and scores |

Operators of ATen are methods of [Tensor](./tensor/classes/Tensor.md) and functions of [ops](./tensor/variables/ops.md), with PyTorch's names in camelCase. Their types, made
from the operators' schemas, come with the package; [From PyTorch](../guide/from-pytorch.md) shows how they are called.
`

step('names', () => writeFileSync(join(docs, 'guide/pytorch-names.md'), namesPage()))
step('commands', () => writeFileSync(join(docs, 'cli.md'), cliPage()))
if (!process.argv.includes('--no-api') || !existsSync(join(docs, 'api'))) {
  rmSync(join(docs, 'api'), { recursive: true, force: true })
  step('reference', () => {
    run('typedoc/bin/typedoc', '--options', 'typedoc.json')
    renameIndex(join(docs, 'api'))
    writeFileSync(join(docs, 'api/index.md'), REFERENCE)
  })
}
step('site', () => run('vitepress/bin/vitepress.js', 'build'))
const { pages, links } = step('links', () => checkLinks(site))
console.log(`docs/.vitepress/dist: ${pages} pages, ${links} links`)
