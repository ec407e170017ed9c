import { existsSync, readFileSync } from 'node:fs'
import { defineConfig } from 'vitepress'

interface Item {
  text: string
  link?: string
  items?: Item[]
}

const file = new URL('../api/typedoc-sidebar.json', import.meta.url)
const reference: Item[] = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : []
const page = (text: string, link: string) => ({ text, link })

const guide = [
  {
    text: 'Guide',
    items: [
      page('Install', '/guide/install'),
      page('Demo', '/guide/demo'),
      page('Glossary', '/guide/words'),
      page('Pipelines', '/guide/pipelines'),
      page('Tensors', '/guide/tensors'),
      page('Memory', '/guide/memory'),
      page('Threads and promises', '/guide/threads'),
      page('Training', '/guide/training'),
      page('Published networks', '/guide/networks'),
      page('Published weights', '/guide/published-weights'),
      page('Images in a conversation', '/guide/internvl'),
      page('LoRA and quantization', '/guide/lora'),
      page('Supervised fine-tuning', '/guide/supervised-fine-tuning'),
      page('Preference training', '/guide/preference-training'),
      page('Files, audio and text', '/guide/files'),
      page('Datasets from disk', '/guide/datasets'),
      page('Images and video', '/guide/images'),
      page('Serve', '/guide/serve'),
      page('CUDA', '/guide/cuda'),
      page('CUDA: what is tested', '/guide/cuda-proof'),
      page('Fine-tune Whisper', '/guide/fine-tune-whisper'),
      page('Custom autograd functions', '/guide/custom-gradients'),
      page('Distributions', '/guide/distributions'),
      page('Function transforms', '/guide/function-transforms'),
      page('Several processes', '/guide/processes'),
      page('Test runners and bundlers', '/guide/tools'),
      page('From PyTorch', '/guide/from-pytorch'),
      page("PyTorch's names", '/guide/pytorch-names'),
      page('From transformers and PEFT', '/guide/from-transformers'),
    ],
  },
  {
    text: 'Systems',
    items: [
      page('SPECTRA', '/systems/spectra'),
      page('SALMONN', '/systems/salmonn'),
      page('USDM', '/systems/usdm'),
      page('LanguageBind', '/systems/languagebind'),
      page('LanguageBind emotion', '/systems/emotion'),
      page('EmoVerse', '/systems/emoverse'),
    ],
  },
  {
    text: 'More',
    items: [page('Commands', '/cli'), page('Reference', '/api/'), page('Performance', '/performance')],
  },
  {
    text: 'Developing voxtorch',
    collapsed: true,
    items: [
      page('Architecture', '/dev/architecture'),
      page('Adding things', '/dev/adding'),
      page('Decoder families', '/dev/decoder-families'),
      page('Testing', '/dev/testing'),
      page('Dependencies', '/dev/dependencies'),
      page('Benchmarks', '/dev/benchmarks'),
      page('Releasing', '/dev/releasing'),
    ],
  },
]

/** A folder of lib/ by what its names are imported from. */
const nameOf = (folder: string): string =>
  /^(files|serve|emotion|emoverse|salmonn|spectra|usdm)$/.test(folder) ? `voxtorch/${folder}` : folder
const modules = reference.flatMap((item) => (item.link ? [item] : (item.items ?? [])))
/** Each module has a sidebar of its own: that of all would be most of every page. */
const sidebars = modules.map(({ text, link = '', items = [] }) => [
  link,
  [page('Reference', '/api/'), { text: nameOf(text), link, items }],
])

// biome-ignore lint/style/noDefaultExport: what vitepress reads
export default defineConfig({
  title: 'voxtorch',
  description: 'Speech and text models natively on libtorch, in TypeScript',
  srcExclude: ['node_modules/**'],
  cleanUrls: true,
  metaChunk: true,
  vite: { build: { chunkSizeWarningLimit: 20_000 } },
  themeConfig: {
    nav: [
      page('Guide', '/guide/install'),
      {
        text: 'Systems',
        items: [
          page('SPECTRA', '/systems/spectra'),
          page('SALMONN', '/systems/salmonn'),
          page('USDM', '/systems/usdm'),
          page('LanguageBind emotion', '/systems/emotion'),
          page('EmoVerse', '/systems/emoverse'),
        ],
      },
      page('Commands', '/cli'),
      page('Reference', '/api/'),
    ],
    sidebar: {
      ...Object.fromEntries(sidebars),
      '/api/': [
        page('Guide', '/guide/install'),
        { text: 'Reference', items: modules.map(({ text, link = '' }) => page(nameOf(text), link)) },
      ],
      '/': guide,
    },
    outline: { level: [2, 3] },
    search: { provider: 'local' },
    socialLinks: [{ icon: 'github', link: 'https://github.com/voxtorch/voxtorch' }],
  },
})
