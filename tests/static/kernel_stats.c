// Compiles compute kernels with whatever Vulkan driver is there and prints what its compiler says of each.
//   gcc -O1 -o kernel_stats kernel_stats.c -lvulkan          (Debian: gcc libc6-dev libvulkan-dev)
//   kernel_stats robust|plain [text] < LIST
// LIST has a line a kernel: NAME, LAYOUT and SPIR-V file, separated by tabs. LAYOUT has a letter a binding of group 0:
// u for a uniform buffer, s for a storage buffer. The entry point is `main`.
//   robust   the device is opened as wgpu opens it, with robustBufferAccess2
//   plain    without any robust access
//   text     the driver's lines about loads are printed too
// Output, tab-separated, one line each: device, driver; then per kernel: program NAME, stat NAME VALUE ..., and
// end ok | end not offered: WHY | end failed: WHY. A driver that dies leaves its program without an end.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>

// VK_KHR_cooperative_matrix is newer than Debian 12's headers.
#define MATRIX_FEATURES ((VkStructureType)1000506000)
#define MATRIX_PROPERTIES ((VkStructureType)1000506001)
typedef struct {
  VkStructureType sType;
  void *pNext;
  VkBool32 cooperativeMatrix, robust;
} MatrixFeatures;
typedef struct {
  VkStructureType sType;
  void *pNext;
  uint32_t m, n, k;
  int a, b, c, result;
  VkBool32 saturating;
  int scope;
} MatrixProperties;
typedef VkResult (*GetMatrixProperties)(VkPhysicalDevice, uint32_t *, MatrixProperties *);

// SPIR-V
enum { FIRST = 5, OP_CAPABILITY = 17, OP_CONSTANT = 43, OP_TYPE_MATRIX = 4456, CAP_FLOAT16 = 9, CAP_MATRIX = 6022 };

static VkInstance instance;
static VkPhysicalDevice physical;
static VkDevice device;
static int with_f16, with_matrices;

static void stop(const char *why) {
  fprintf(stderr, "kernel_stats: %s\n", why);
  fflush(stdout);
  _Exit(1); // no tear-down: some drivers wait for a GPU there
}

static void check(VkResult result, const char *what) {
  if (result < 0) {
    char why[128];
    snprintf(why, sizeof why, "%s: %d", what, result);
    stop(why);
  }
}

static int has(const VkExtensionProperties *all, uint32_t n, const char *name) {
  for (uint32_t i = 0; i < n; i++)
    if (!strcmp(all[i].extensionName, name)) return 1;
  return 0;
}

static void open_device(int robust) {
  VkApplicationInfo app = { VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_3 };
  VkInstanceCreateInfo instance_info = { VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &app };
  check(vkCreateInstance(&instance_info, 0, &instance), "vkCreateInstance");
  uint32_t n = 1;
  check(vkEnumeratePhysicalDevices(instance, &n, &physical), "vkEnumeratePhysicalDevices");
  if (!n) stop("the driver shows no device");
  VkPhysicalDeviceDriverProperties driver = { VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES };
  VkPhysicalDeviceProperties2 properties = { VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, &driver };
  vkGetPhysicalDeviceProperties2(physical, &properties);
  printf("device\t%s\ndriver\t%s\n", properties.properties.deviceName, driver.driverInfo);

  static VkExtensionProperties extensions[1000];
  n = 1000;
  vkEnumerateDeviceExtensionProperties(physical, 0, &n, extensions);
  if (!has(extensions, n, "VK_KHR_pipeline_executable_properties")) stop("the driver gives no statistics");
  with_matrices = has(extensions, n, "VK_KHR_cooperative_matrix");

  VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR statistics = {
    VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR
  };
  MatrixFeatures matrices = { MATRIX_FEATURES, &statistics };
  VkPhysicalDeviceRobustness2FeaturesEXT robustness = {
    VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT, with_matrices ? (void *)&matrices : &statistics
  };
  VkPhysicalDeviceVulkan13Features v13 = { VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES, &robustness };
  VkPhysicalDeviceVulkan12Features v12 = { VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, &v13 };
  VkPhysicalDeviceVulkan11Features v11 = { VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, &v12 };
  VkPhysicalDeviceFeatures2 features = { VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, &v11 };
  vkGetPhysicalDeviceFeatures2(physical, &features);
  // The SPIR-V was written for a device that has these; for another one wgpu would write other SPIR-V.
  if (properties.properties.apiVersion < VK_API_VERSION_1_3) stop("the device has no Vulkan 1.3");
  if (!robustness.robustBufferAccess2) stop("the device has no robustBufferAccess2");
  if (!v12.shaderInt8 || !v13.shaderIntegerDotProduct) stop("the device has no shaderInt8 or no integer dot product");
  with_f16 = v12.shaderFloat16 && v11.storageBuffer16BitAccess && v11.uniformAndStorageBuffer16BitAccess;
  // What else a device has does not change what its compiler does with our kernels; these do.
  robustness.nullDescriptor = VK_FALSE;
  if (!robust) {
    features.features.robustBufferAccess = v13.robustImageAccess = VK_FALSE;
    robustness.robustBufferAccess2 = robustness.robustImageAccess2 = VK_FALSE;
  }

  const char *enabled[] = { "VK_KHR_pipeline_executable_properties", "VK_EXT_robustness2",
                            "VK_KHR_cooperative_matrix" };
  float priority = 1;
  VkDeviceQueueCreateInfo queue = {
    VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueCount = 1, .pQueuePriorities = &priority
  };
  VkDeviceCreateInfo device_info = { VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                     &features,
                                     .queueCreateInfoCount = 1,
                                     .pQueueCreateInfos = &queue,
                                     .enabledExtensionCount = with_matrices ? 3 : 2,
                                     .ppEnabledExtensionNames = enabled };
  check(vkCreateDevice(physical, &device_info, 0, &device), "vkCreateDevice");
}

static int fail(const char *format, ...) {
  va_list values;
  va_start(values, format);
  printf("end\t");
  vprintf(format, values);
  printf("\n");
  va_end(values);
  return 0;
}

static uint32_t *read_words(const char *path, size_t *words) {
  FILE *f = fopen(path, "rb");
  if (!f) return 0;
  fseek(f, 0, SEEK_END);
  size_t bytes = ftell(f);
  rewind(f);
  uint32_t *code = malloc(bytes + 4);
  *words = code ? fread(code, 4, bytes / 4, f) : 0;
  fclose(f);
  return *words > FIRST ? code : 0;
}

static uint32_t constant(const uint32_t *code, size_t words, uint32_t id) {
  for (size_t i = FIRST; i < words && code[i] >> 16; i += code[i] >> 16)
    if ((code[i] & 0xffff) == OP_CONSTANT && code[i + 2] == id) return code[i + 3];
  return 0;
}

// Drivers do not check the shapes of cooperative matrices, so this does.
static int offers_shape(const uint32_t *code, size_t words) {
  uint32_t m = 0, n = 0, k = 0;
  for (size_t i = FIRST; i < words && code[i] >> 16; i += code[i] >> 16) {
    if ((code[i] & 0xffff) != OP_TYPE_MATRIX) continue;
    uint32_t rows = constant(code, words, code[i + 4]), cols = constant(code, words, code[i + 5]);
    uint32_t use = constant(code, words, code[i + 6]);
    if (use == 0) m = rows, k = cols; // A is M x K, B is K x N
    if (use == 1) n = cols, k = rows;
  }
  GetMatrixProperties get =
    (GetMatrixProperties)vkGetInstanceProcAddr(instance, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
  if (!get) return 0;
  static MatrixProperties all[256];
  uint32_t count = 256;
  for (uint32_t i = 0; i < count; i++) all[i] = (MatrixProperties){ MATRIX_PROPERTIES };
  get(physical, &count, all);
  for (uint32_t i = 0; i < count; i++)
    if (!all[i].saturating && all[i].m == m && all[i].n == n && all[i].k == k) return 1;
  return 0;
}

static const char *not_offered(const uint32_t *code, size_t words) {
  for (size_t i = FIRST; i < words && code[i] >> 16; i += code[i] >> 16) {
    if ((code[i] & 0xffff) != OP_CAPABILITY) continue;
    if (code[i + 1] == CAP_FLOAT16 && !with_f16) return "f16";
    if (code[i + 1] == CAP_MATRIX && !(with_matrices && offers_shape(code, words))) return "these matrices";
  }
  return 0;
}

static VkPipelineLayout layout_of(const char *letters) {
  VkDescriptorSetLayoutBinding bindings[32];
  uint32_t n = 0;
  for (; letters[n] && n < 32; n++)
    bindings[n] = (VkDescriptorSetLayoutBinding){
      n, letters[n] == 'u' ? VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1,
      VK_SHADER_STAGE_COMPUTE_BIT
    };
  VkDescriptorSetLayoutCreateInfo set_info = {
    VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO, .bindingCount = n, .pBindings = bindings
  };
  VkDescriptorSetLayout set;
  check(vkCreateDescriptorSetLayout(device, &set_info, 0, &set), "vkCreateDescriptorSetLayout");
  VkPipelineLayoutCreateInfo info = {
    VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO, .setLayoutCount = 1, .pSetLayouts = &set
  };
  VkPipelineLayout layout;
  check(vkCreatePipelineLayout(device, &info, 0, &layout), "vkCreatePipelineLayout");
  return layout;
}

#define GET(name) PFN_##name name = (PFN_##name)vkGetDeviceProcAddr(device, #name)

static void print_statistics(const VkPipelineExecutableInfoKHR *executable) {
  GET(vkGetPipelineExecutableStatisticsKHR);
  VkPipelineExecutableStatisticKHR all[64];
  uint32_t n = 64;
  for (uint32_t i = 0; i < n; i++)
    all[i] = (VkPipelineExecutableStatisticKHR){ VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR };
  vkGetPipelineExecutableStatisticsKHR(device, executable, &n, all);
  for (uint32_t i = 0; i < n; i++) {
    printf("stat\t%s\t", all[i].name);
    switch (all[i].format) {
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_FLOAT64_KHR: printf("%.0f\n", all[i].value.f64); break;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR: printf("%u\n", all[i].value.b32); break;
    default: printf("%lld\n", (long long)all[i].value.i64);
    }
  }
}

// The lines with a load of every text that is NIR, the form that all of Mesa's compilers share.
static void print_loads(const VkPipelineExecutableInfoKHR *executable) {
  GET(vkGetPipelineExecutableInternalRepresentationsKHR);
  VkPipelineExecutableInternalRepresentationKHR all[16];
  uint32_t n = 16;
  for (uint32_t i = 0; i < n; i++)
    all[i] = (VkPipelineExecutableInternalRepresentationKHR){
      VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR
    };
  vkGetPipelineExecutableInternalRepresentationsKHR(device, executable, &n, all);
  for (uint32_t i = 0; i < n; i++) all[i].pData = calloc(1, all[i].dataSize + 1);
  vkGetPipelineExecutableInternalRepresentationsKHR(device, executable, &n, all);
  for (uint32_t i = 0; i < n; i++) {
    int is_nir = all[i].isText && strstr(all[i].name, "NIR") && !strstr(all[i].name, "SPIRV");
    for (char *line = is_nir ? strtok(all[i].pData, "\n") : 0; line; line = strtok(0, "\n"))
      if (strstr(line, "= @load_")) printf("%s\n", line);
  }
}

static int compile(const char *letters, const char *path, int text) {
  size_t words = 0;
  uint32_t *code = read_words(path, &words);
  if (!code) return fail("failed: %s cannot be read", path);
  const char *lacks = not_offered(code, words);
  if (lacks) return fail("not offered: %s", lacks);
  VkShaderModuleCreateInfo module_info = {
    VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = words * 4, .pCode = code
  };
  VkShaderModule module;
  VkResult result = vkCreateShaderModule(device, &module_info, 0, &module);
  if (result < 0) return fail("failed: vkCreateShaderModule: %d", result);
  VkComputePipelineCreateInfo info = {
    VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
    .flags = VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR |
             (text ? VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR : 0),
    // wgpu lets the driver choose the size of subgroups.
    .stage = { VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
               .flags = VK_PIPELINE_SHADER_STAGE_CREATE_ALLOW_VARYING_SUBGROUP_SIZE_BIT,
               .stage = VK_SHADER_STAGE_COMPUTE_BIT, .module = module, .pName = "main" },
    .layout = layout_of(letters)
  };
  VkPipeline pipeline;
  result = vkCreateComputePipelines(device, 0, 1, &info, 0, &pipeline);
  if (result < 0) return fail("failed: vkCreateComputePipelines: %d", result);

  GET(vkGetPipelineExecutablePropertiesKHR);
  VkPipelineInfoKHR pipeline_info = { VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR, 0, pipeline };
  uint32_t n = 0;
  vkGetPipelineExecutablePropertiesKHR(device, &pipeline_info, &n, 0);
  if (n != 1) return fail("failed: %u executables instead of one", n);
  VkPipelineExecutablePropertiesKHR properties = { VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR };
  vkGetPipelineExecutablePropertiesKHR(device, &pipeline_info, &n, &properties);
  printf("stat\tSubgroup size\t%u\n", properties.subgroupSize);
  VkPipelineExecutableInfoKHR executable = { VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, 0, pipeline, 0 };
  print_statistics(&executable);
  if (text) print_loads(&executable);
  vkDestroyPipeline(device, pipeline, 0);
  vkDestroyShaderModule(device, module, 0);
  free(code);
  printf("end\tok\n");
  return 1;
}

int main(int argc, char **argv) {
  int robust = argc > 1 && !strcmp(argv[1], "robust"), plain = argc > 1 && !strcmp(argv[1], "plain");
  int text = argc == 3 && !strcmp(argv[2], "text");
  if ((!robust && !plain) || argc > 2 + text) stop("usage: kernel_stats robust|plain [text] < LIST");
  open_device(robust);
  char line[4096];
  while (fgets(line, sizeof line, stdin)) {
    char *name = strtok(line, "\t\n"), *letters = strtok(0, "\t\n"), *path = strtok(0, "\t\n");
    if (!path) stop("a line of LIST has no NAME, LAYOUT and file");
    printf("program\t%s\n", name);
    fflush(stdout); // should the driver die in it
    compile(letters, path, text);
    fflush(stdout);
  }
  fflush(stdout);
  _Exit(0);
}
