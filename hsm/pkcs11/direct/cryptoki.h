// What our own calls past the binding need of PKCS #11 v2.40 on LP64 machines.
typedef unsigned long word;

// The head of CK_FUNCTION_LIST (section 5.2): the version, then the functions in
// the standard's order.
struct list {
	unsigned char version[2];
	void *f[68];
};

enum { LOGIN = 18, CREATE = 20, DESTROY = 22, ENCRYPT = 30, DECRYPT = 34, SIGN_INIT = 42, SIGN = 43, WRAP = 60, UNWRAP = 61 };

// CK_ATTRIBUTE and CK_MECHANISM.
struct attribute {
	word type;
	void *value;
	word len;
};
struct mechanism {
	word type;
	void *parameter;
	word len;
};
