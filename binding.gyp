# What prebuildify has node-gyp run: cmake-js builds the addon, and what belongs into a prebuild is copied from there.
# scripts/prebuild.mjs runs it in a folder of its own, because node-gyp begins with removing build/. Not published: a
# binding.gyp in a published package makes npm build at every installation.
{
  'variables': {
    'root%': '.',
    'built%': 'build',
    # 0 takes what is in `built` as it is.
    'make%': 1,
    'flags%': '',
    'artifacts': '<(PRODUCT_DIR)/artifacts',
  },
  'targets': [
    {
      'target_name': 'build',
      'type': 'none',
      'conditions': [
        ['make==1', {
          'actions': [
            {
              'action_name': 'cmake-js',
              'inputs': [],
              'outputs': ['<(INTERMEDIATE_DIR)/always'],
              'action': ['node', '<(root)/scripts/bootstrap.mjs', '<@(flags)'],
            },
          ],
        }],
      ],
    },
    {
      'target_name': 'voxtorch',
      'type': 'none',
      'dependencies': ['build'],
      # Not 'copies', which makes hard links: prebuildify strips what it takes.
      'actions': [
        {
          'action_name': 'addon',
          'inputs': [],
          'outputs': ['<(PRODUCT_DIR)/voxtorch.node', '<(PRODUCT_DIR)/libvoxtorch_core.so'],
          'action': ['cp', '<(built)/voxtorch.node', '<(built)/libvoxtorch_core.so', '<(PRODUCT_DIR)'],
        },
        {
          'action_name': 'artifacts',
          'inputs': [],
          'outputs': ['<(artifacts)/voxtorch_loader.node', '<(artifacts)/voxtorch-build.json'],
          'action': ['cp', '<(built)/voxtorch_loader.node', '<(built)/voxtorch-build.json', '<(artifacts)'],
        },
      ],
    },
  ],
}
